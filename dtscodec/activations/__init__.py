"""Statistics of layer inputs: Gram matrix files, and the metric that they define on deltas."""
