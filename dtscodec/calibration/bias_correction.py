"""Bias correction: what a layer puts out too little, in the mean, is added to its bias.

Quantizers do so by the mean of a layer's inputs (Nagel et al., arXiv 1906.04721, section 4.2). Here layers are
corrected in the order in which they run, each by what it puts out after those before it, which are decoded and
corrected already.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dtscodec.calibration.collect import unpadded_rows
from dtscodec.calibration.student import Student
from dtscodec.evaluation.text_batches import SampleBatch
from dtscodec.runtime.branches.factory import branch_class
from dtscodec.runtime.branches.linear import Conv1DBranch, LinearBranch
from dtscodec.runtime.branches.norm import LayerNormBranch

KINDS = LinearBranch, Conv1DBranch, LayerNormBranch
"""Layers that add their bias to all else that they do."""


def biased_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Layers that add a bias, by their names."""
    return {
        name: module
        for name, module in model.named_modules()
        if branch_class(module) in KINDS and getattr(module, "bias", None) is not None
    }


@torch.no_grad()
def mean_outputs(
    model: nn.Module, batches: Sequence[SampleBatch], layers: Mapping[str, nn.Module]
) -> dict[str, Tensor]:
    """What layers put out in the mean, in the order in which they run, without those that run more than once in a call.

    Parameters
    ----------
    model : nn.Module
    batches : sequence of SampleBatch
        Padding does not count.
    layers : mapping
        Modules of the model by their names.

    Returns
    -------
    dict
        By name: float64 [d_out].
    """
    sums: dict[str, Tensor] = {}
    counts, runs = Counter[str](), Counter[str]()

    def look(name: str, mask: Tensor | None, module: nn.Module, inputs: Any, output: Tensor) -> None:
        rows = unpadded_rows(output, mask)
        sums[name] = sums.get(name, 0.0) + rows.sum(0, dtype=torch.float64)
        counts[name] += len(rows)
        runs[name] += 1

    for batch in batches:
        mask = batch.inputs.get("attention_mask")
        hooks = [module.register_forward_hook(partial(look, name, mask)) for name, module in layers.items()]
        try:
            model(**batch.inputs)
        finally:
            for hook in hooks:
                hook.remove()
    return {name: total / max(1, counts[name]) for name, total in sums.items() if runs[name] == len(batches)}


def correct_biases(student: Student, batches: Sequence[SampleBatch], wanted: Mapping[str, Tensor]) -> None:
    """Make the mean outputs of a student's layers those of its teacher, as far as the pack can hold that.

    A layer whose bias the pack does not code element by element stays as it is; for each of the others the model runs
    once on all batches.

    Parameters
    ----------
    student : Student
    batches : sequence of SampleBatch
    wanted : mapping
        What `mean_outputs` gives for the teacher on these batches.
    """
    layers = {name: module for name, module in biased_layers(student.model).items() if student.has_bias(module)}
    for name, mean in wanted.items():
        if name in layers:
            (found,) = mean_outputs(student.model, batches, {name: layers[name]}).values()
            student.shift_bias(layers[name], (mean - found).float())
            student.rebuild()
