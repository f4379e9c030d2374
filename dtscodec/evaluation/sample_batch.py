"""A batch of samples as inputs of a model, and where in its output the predictions are."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dtscodec.evaluation.samples import Samples


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """A batch of samples, as a model takes it.

    Parameters
    ----------
    samples : int
        Number of samples.
    inputs : dict
        Keyword arguments of the model.
    places : int64 [predictions]
        Indices of the predictions in the model's logits, all but whose last dimension are flattened.
    targets : int64 [predictions], optional
        The right answers: labels, or next tokens.
    """

    samples: int
    inputs: dict[str, Tensor]
    places: Tensor
    targets: Tensor | None

    def to(self, device: str) -> "SampleBatch":
        """Return the batch with inputs and places on a device; targets stay where they are."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, places=self.places.to(device))


def label_tensor(samples: Samples) -> Tensor | None:
    """Return the labels of samples, int64 [samples], or None if they have none."""
    labels = [sample.label for sample in samples if sample.label is not None]
    return torch.tensor(labels) if labels else None
