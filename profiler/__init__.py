"""Devices and graphs in, latency records out."""
