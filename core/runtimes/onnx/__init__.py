"""ONNX Runtime on the CPU: running the graphs, and exporting them."""
