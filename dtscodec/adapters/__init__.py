"""Conversion between packs and LoRA adapters as PEFT, vLLM and SGLang load them."""
