"""Pack -> LoRA adapter of PEFT, for PEFT and vLLM."""
