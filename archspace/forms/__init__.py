"""A Graph as a torch module, a .tflite file and an .onnx file."""
