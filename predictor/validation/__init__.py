"""Held-out errors: cross-validation, metrics, and the choice of a model by them."""
