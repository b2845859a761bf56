"""The latency of networks from that of their blocks."""
