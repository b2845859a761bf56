"""A space, images and a latency table in; the architecture that meets the target out."""
