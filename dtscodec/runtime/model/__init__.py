"""Tensors of a pack -> parameters and buffers of a model."""
