"""From a net to ONNX, and the passes over ONNX graphs that exporters share."""
