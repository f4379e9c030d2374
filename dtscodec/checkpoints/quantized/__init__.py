"""Quantized checkpoints: the schemes of quantization libraries, and reading them dequantized (spec section 7.1)."""
