"""LoRA adapter of PEFT + base -> pack."""
