"""A Graph as a torch module, a .tflite file and an .onnx file.

Import the form that is needed (`netlathe.archspace.forms.torch`, `.tflite`, `.onnx`): this package itself imports none
of their libraries.
"""
