"""Fitting low-rank factors: coordinate descent on quantized vectors, essential subspaces."""
