"""Bias correction: the difference of a layer's mean outputs is added to its bias.

Quantizers correct biases by the mean of a layer's inputs (Nagel et al., arXiv 1906.04721, section 4.2). Here layers are
corrected in the order in which they run, each by its outputs when all layers before it are decoded and corrected.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dtscodec.calibration.gram_collector import unpadded_rows
from dtscodec.calibration.student import Student
from dtscodec.evaluation.sample_batches import SampleBatch
from dtscodec.runtime.branches.branch_for_layer import branch_class
from dtscodec.runtime.branches.linear import Conv1DBranch, LinearBranch
from dtscodec.runtime.branches.norm import LayerNormBranch

ADDITIVE = LinearBranch, Conv1DBranch, LayerNormBranch
"""Classes for layers whose output is the bias plus a term that does not depend on it."""


def biased_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that add a bias, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if branch_class(module) in ADDITIVE and getattr(module, "bias", None) is not None
    }


@torch.no_grad()
def mean_outputs(
    model: nn.Module, batches: Sequence[SampleBatch], layers: Mapping[str, nn.Module]
) -> dict[str, Tensor]:
    """Return the mean outputs of layers, in the order in which they run.

    Layers that run more than once in a call are left out, since one bias cannot correct several means.

    Parameters
    ----------
    model : nn.Module
        The model.
    batches : sequence of SampleBatch
        Its inputs. Padding does not count.
    layers : mapping
        Modules of the model by name.

    Returns
    -------
    dict
        By name: float64 [d_out].
    """
    sums: dict[str, Tensor] = {}
    counts, runs = Counter[str](), Counter[str]()

    def add_output(name: str, mask: Tensor | None, module: nn.Module, inputs: Any, output: Tensor) -> None:
        rows = unpadded_rows(output, mask)
        sums[name] = sums.get(name, 0.0) + rows.sum(0, dtype=torch.float64)
        counts[name] += len(rows)
        runs[name] += 1

    for batch in batches:
        mask = batch.inputs.get("attention_mask")
        # The hooks of each batch leave out its padding.
        hooks = [module.register_forward_hook(partial(add_output, name, mask)) for name, module in layers.items()]
        try:
            model(**batch.inputs)
        finally:
            for hook in hooks:
                hook.remove()
    # Layers that run more than once in a call have more runs than batches.
    return {name: total / max(1, counts[name]) for name, total in sums.items() if runs[name] == len(batches)}


def correct_biases(student: Student, batches: Sequence[SampleBatch], wanted: Mapping[str, Tensor]) -> None:
    """Make the mean outputs of a student's layers those of its teacher, up to the rounding of what the pack stores.

    Only biases that the pack codes element by element are corrected. The model runs on all batches once per bias.

    Parameters
    ----------
    student : Student
        The decoded model; its biases are changed in place.
    batches : sequence of SampleBatch
        The calibration samples.
    wanted : mapping of str to float64 [d_out]
        The teacher's mean outputs on these batches; see `mean_outputs`.
    """
    modules = {name: student.model.get_submodule(name) for name in wanted}
    layers = {name: module for name, module in modules.items() if student.has_bias(module)}
    for name, mean in wanted.items():
        if name in layers:
            # Measured only now: corrections of the layers before it have changed this layer's inputs.
            (found,) = mean_outputs(student.model, batches, {name: layers[name]}).values()
            student.shift_bias(layers[name], (mean - found).float())
            student.rebuild()
