"""Graphs and records as numbers: work terms, log features, samples."""
