"""Merge methods, one file each, what they share, and a registry of all of them by name."""
