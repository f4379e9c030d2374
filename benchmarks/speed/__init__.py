"""How long encoding takes: of single matrices, and of whole models that grow.

Run by ``python -m benchmarks.speed``; `matrices` times what is done with one matrix, `pair` writes a model and a
fine-tune of it, `models` encodes them.
"""
