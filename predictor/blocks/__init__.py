"""The latency of single blocks: physics, and regressors on its residual."""
