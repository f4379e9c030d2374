"""Packs and the adapters of other libraries: PEFT's LoRA, as PEFT, vLLM and SGLang load it."""
