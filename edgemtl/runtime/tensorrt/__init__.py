"""TensorRT on the board itself: engines are built there, stored with what they were built by, and run."""
