"""The latency of single blocks: physics, and regressors on what it leaves over."""
