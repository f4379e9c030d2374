"""Checkpoints as lazy, named tensors: reading, writing, identity, names, and the small files beside them."""
