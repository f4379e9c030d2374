"""Duration of encoding: of single matrices, of whole models that grow, and of many fine-tunes of one base.

Run by ``python -m benchmarks.speed``; `matrices` times what is done with one matrix, `factors` the factors of all
matrices of a model, `pair` writes a model and fine-tunes of it, `models` encodes them on every engine, `many` encodes
many fine-tunes at once.
"""
