"""A phone as a device: its description, its sessions, and how it is kept steady."""
