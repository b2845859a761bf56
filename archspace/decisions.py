"""Choices among options: what a search decides."""

from __future__ import annotations

Choices = tuple[int, ...]
"""One option index per decision."""
