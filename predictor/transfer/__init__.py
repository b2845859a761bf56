"""A new device's latency from that of known devices and a few measurements."""
