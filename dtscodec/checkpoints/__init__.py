"""Checkpoints as lazy, named tensors: opening, writing, digests, matching of names, and auxiliary files."""
