"""Matching of tensor names: the counterpart in a base of each tensor of a fine-tune."""
