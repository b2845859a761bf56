"""Latency records in, milliseconds with an interval out."""
