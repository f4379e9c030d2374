"""Packs in a running model: switched in place, beside the weights, or while it loads."""
