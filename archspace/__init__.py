"""What a network is: ops, graphs, blocks, spaces, latency records, and their torch, TFLite and ONNX forms."""
