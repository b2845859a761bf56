"""What a phone is, what runs on it, and how it is kept steady."""
