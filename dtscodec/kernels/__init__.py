"""Packed codes -> weights: the arithmetic of decoding on each backend."""
