"""Cost of decoding: one matrix, a whole checkpoint, a change of tasks, and packs beside a running model.

``python -m benchmarks.decode`` measures each against the least that the arithmetic takes, against loading the whole
fine-tune, and against merged weights and a LoRA; see ``--help``.
"""
