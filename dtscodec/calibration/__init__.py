"""What a model does with samples, used to encode its fine-tune better: inputs of its layers, and its own answers.

samples -> `collect` -> Gram matrices of layers' inputs -> `dtscodec.encode`, which keeps layers' outputs.
pack + samples -> `student`, whose weights follow the pack's numbers -> `gradients` -> `fit` -> better numbers.
"""
