"""Black-box strategies: they ask for the scores of whole networks within limits, and learn from what they are told."""
