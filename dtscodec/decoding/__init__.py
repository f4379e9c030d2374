"""Pack + base -> weights, and comparing them with the fine-tune."""
