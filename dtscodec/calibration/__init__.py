"""Calibration: packs fitted to the outputs of their fine-tunes on samples, and Gram matrices of layer inputs.

samples -> `collect` -> Gram matrices of layer inputs -> merging by ESM, routing.
pack + samples -> `teacher` (targets) and `student` (weights as functions of numbers) -> `distillation` (loss) and
`fit_parameters` -> `optimize` -> `fit` -> pack.
"""
