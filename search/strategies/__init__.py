"""Strategies: ways to look for the choices of the best score within limits."""
