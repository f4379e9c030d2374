"""What a model does with texts, used to encode its fine-tune better: inputs of its layers, and its own answers.

texts -> `collect` -> Gram matrices of layers' inputs -> `dtscodec.encode`, which keeps layers' outputs.
pack + texts -> `student`, whose weights follow the pack's numbers -> `gradients` -> `distill` -> better numbers.
"""
