"""Lossless peers, each in the setting that makes its files smallest."""
