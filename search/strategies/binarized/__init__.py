"""Path-binarized differentiable search (ProxylessNAS, arXiv:1812.00332) in a supernet of a space of blocks."""
