"""Statistics of layer inputs: Gram matrices and means, in memory and in files."""
