"""A compression: a network that the user already has, shaped to a latency, in phases that a folder keeps."""
