"""Fitting quantized low-rank factors to a delta by coordinate descent."""
