"""A batch of samples, as a model takes it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dtscodec.evaluation.image_samples import ImageSample
from dtscodec.evaluation.text_samples import TextSample


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """A batch of samples as inputs of a model, and the places of the predictions in its output.

    Parameters
    ----------
    samples : int
        Number of samples.
    inputs : dict of str to Tensor
        Keyword arguments of the model.
    places : int64 [predictions]
        Rows of the predictions in the model's logits, flattened to [rows, choices].
    targets : int64 [predictions], optional
        The right choices: labels, or next tokens.
    rows : int
        Rows of logits of one sample: its tokens for a causal language model, with padding, else 1.
    truncated : int
        Number of samples of which only the first tokens are in the batch.
    """

    samples: int
    inputs: dict[str, Tensor]
    places: Tensor
    targets: Tensor | None
    rows: int = 1
    truncated: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens of all samples, with padding; that of samples for images."""
        ids = self.inputs.get("input_ids")
        return self.samples if ids is None else ids.numel()

    def split(self, tokens: int) -> "list[SampleBatch]":
        """Return the same samples in batches of at most a number of tokens, or of one sample. Images are not split.

        Parameters
        ----------
        tokens : int
            Largest number of tokens of a batch, with padding.
        """
        parts = min(self.samples, -(-self.tokens // tokens)) if "input_ids" in self.inputs else 1
        bounds = [part * self.samples // parts for part in range(parts + 1)]
        return [self._part(*bounds[part : part + 2]) for part in range(parts)]

    def _part(self, begin: int, end: int) -> "SampleBatch":
        chosen = (self.places >= begin * self.rows) & (self.places < end * self.rows)
        return replace(
            self,
            samples=end - begin,
            inputs={name: tensor[begin:end] for name, tensor in self.inputs.items()},
            places=self.places[chosen] - begin * self.rows,
            targets=None if self.targets is None else self.targets[chosen.cpu()],
            truncated=0,
        )

    def by_sample(self) -> Iterator[tuple[int, Tensor]]:
        """Yield each sample that has predictions, by its place in the batch, and which predictions are its own.

        Yields
        ------
        sample : int
            Place in the batch.
        predictions : int64 [count]
            Indices into `places` and `targets`.
        """
        owners = self.places // self.rows
        for sample in sorted(set(owners.tolist())):
            yield sample, (owners == sample).nonzero().flatten()

    def to(self, device: str) -> "SampleBatch":
        """Return the batch with inputs and places on a device.

        Parameters
        ----------
        device : str
            Such as ``"cuda"``. Targets stay on the CPU.
        """
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, places=self.places.to(device))


def label_tensor(samples: Sequence[TextSample] | Sequence[ImageSample]) -> Tensor | None:
    """Return the labels of samples: int64 [samples], or None if they have none."""
    labels = [sample.label for sample in samples if sample.label is not None]
    return torch.tensor(labels) if labels else None
