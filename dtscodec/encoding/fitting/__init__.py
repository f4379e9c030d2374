"""Fitting quantized low-rank factors to a delta: coordinate descent, under an activation metric or none."""
