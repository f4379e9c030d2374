"""The mathematics, in memory: delta -> factors -> codes, and back."""
