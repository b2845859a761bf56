"""Networks as data: ops, graphs, blocks, spaces, latency records, and their torch, TFLite and ONNX forms."""
