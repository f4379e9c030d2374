"""Sharing one budget of bytes among all segments: candidate encodings, allocation, error targets."""
