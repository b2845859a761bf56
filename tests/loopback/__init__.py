"""A phone on 127.0.0.1: an ADB daemon, a private tree that looks like Android's, and a benchmark_model on LiteRT.

Run one by hand, from the checkout: python -m tests.loopback
"""
