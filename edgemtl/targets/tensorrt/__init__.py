"""TensorRT on Jetson boards: graphs that every generation takes, rules that they are held against, and their builds."""
