"""The residual layer of an encode: what a pack's tensors lack to be the fine-tune's, bit for bit."""
