"""Samples + tokenizer or image processor -> batches that a model takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from dtscodec.errors import CheckpointError, SamplesError
from dtscodec.evaluation.architecture import Architecture
from dtscodec.evaluation.image_samples import ImageSample
from dtscodec.evaluation.text_samples import TextSample
from dtscodec.evaluation.transformers_library import transformers_errors


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
    """

    samples: int
    inputs: dict[str, Tensor]
    places: Tensor
    targets: Tensor | None
    rows: int = 1

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


class TextBatcher:
    """Tokenizes texts and pads them to batches.

    Parameters
    ----------
    architecture : Architecture
        The architecture of the model.
    tokenizer : transformers.PreTrainedTokenizerBase
        The tokenizer. For a causal language model its padding side and padding token are changed.
    model : transformers.PreTrainedModel
        The model that the batches are for.
    size : int
        Texts in a batch; 1 is used where they cannot be padded.
    """

    def __init__(self, architecture: Architecture, tokenizer: Any, model: Any, size: int) -> None:
        self._directory, self._is_causal = architecture.directory, architecture.classes is None
        self._tokenizer, self._length = tokenizer, max_tokens(model, tokenizer)
        self._vocabulary = model.get_input_embeddings().weight.shape[0]
        self._parameters = signature(model.forward).parameters
        if self._is_causal:
            # In a causal model padding on the right does not influence the tokens before it, so any token serves.
            tokenizer.padding_side = "right"
            tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        self._size = size if self._can_pad(architecture.config) else 1

    def _can_pad(self, config: Any) -> bool:
        """Return whether texts can be padded: some classifiers find the last token by their config's padding token."""
        ours = self._tokenizer.pad_token_id
        theirs = getattr(config.get_text_config(), "pad_token_id", None)
        return ours is not None and (self._is_causal or ours == theirs)

    def batches(self, texts: Sequence[TextSample]) -> Iterator[SampleBatch]:
        """Yield batches of all texts, sorted by length, so that there is little padding.

        Parameters
        ----------
        texts : sequence of TextSample
            The texts, in any order.

        Raises
        ------
        SamplesError
            A text has no tokens.
        CheckpointError
            The tokenizer is not this model's.
        """
        ordered = sorted(texts, key=lambda text: len(text.text))
        for start in range(0, len(ordered), self._size):
            yield self._batch(ordered[start : start + self._size])

    def _batch(self, texts: Sequence[TextSample]) -> SampleBatch:
        inputs = self._encode(texts)
        tokens, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        # An id beyond the embedding would make the model fail with an error that does not name the cause.
        if tokens.numel() and int(tokens.max()) >= self._vocabulary:
            detail = f"expected a tokenizer of at most {self._vocabulary} tokens, as the model has, got token"
            raise CheckpointError(f"{self._directory}: {detail} {int(tokens.max())}")
        places, targets = _next_tokens(tokens, mask) if self._is_causal else _labels(texts, mask)
        taken = {name: tensor for name, tensor in inputs.items() if name in self._parameters}
        return SampleBatch(len(texts), taken, places, targets, tokens.shape[1] if self._is_causal else 1)

    def _encode(self, texts: Sequence[TextSample]) -> dict[str, Tensor]:
        with transformers_errors(str(self._directory), "a tokenizer that takes these texts"):
            encoded = self._tokenizer(
                [text.text for text in texts],
                padding=len(texts) > 1,
                truncation=self._length is not None,
                max_length=self._length,
                return_attention_mask=True,
                return_tensors="pt",
            )
        return dict(encoded)


def max_tokens(model: Any, tokenizer: Any) -> int | None:
    """Return the largest number of tokens that a model and its tokenizer take; None if neither has a bound.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    """
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0
    for name, module in model.named_modules():
        # RoBERTa and its descendants number positions from the padding index + 1 on.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions -= module.padding_idx + 1
    # For tokenizers without a bound model_max_length is 10^30.
    bounds = [int(bound) for bound in (positions, tokenizer.model_max_length) if 0 < bound < 10**9]
    return min(bounds, default=None)


def _next_tokens(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the flat indices of all tokens but the last of each text, and the token that follows each."""
    # True where the text's next token follows.
    follows = torch.zeros_like(mask)
    follows[:, :-1] = mask[:, 1:]
    places = follows.flatten().nonzero().flatten()
    # No place is at the end of a row, so the next token is at the next flat index.
    return places, tokens.flatten()[places + 1].long()


def _labels(texts: Sequence[TextSample], mask: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the indices of predictions, one for each text, and the labels if there are any."""
    for text, count in zip(texts, mask.sum(dim=1).tolist(), strict=True):
        if not count:
            raise SamplesError(f"{text.where}: expected a text with tokens of this model, got {text.text[:60]!r}")
    return torch.arange(len(texts)), label_tensor(texts)


class ImageBatcher:
    """Turns images into batches by an image processor.

    Parameters
    ----------
    architecture : Architecture
        The architecture of the model.
    processor : transformers.BaseImageProcessor
        The image processor.
    model : transformers.PreTrainedModel
        The model that the batches are for.
    size : int
        Images in a batch.
    """

    def __init__(self, architecture: Architecture, processor: Any, model: Any, size: int) -> None:
        self._directory, self._processor, self._size = architecture.directory, processor, size
        self._parameters = signature(model.forward).parameters

    def batches(self, images: Sequence[ImageSample]) -> Iterator[SampleBatch]:
        """Yield batches of all images, in order. At most one batch of them is in memory.

        Parameters
        ----------
        images : sequence of ImageSample
            The images.

        Raises
        ------
        SamplesError
            An image cannot be read.
        CheckpointError
            The image processor fails, or makes tensors of different shapes.
        """
        for start in range(0, len(images), self._size):
            yield self._batch(images[start : start + self._size])

    def _batch(self, images: Sequence[ImageSample]) -> SampleBatch:
        pictures = [image.open() for image in images]
        with transformers_errors(str(self._directory), "an image processor that makes pictures of one size of these"):
            made = dict(self._processor(pictures, return_tensors="pt"))
        # Only what the model's `forward` takes.
        inputs = {name: tensor for name, tensor in made.items() if name in self._parameters}
        return SampleBatch(len(images), inputs, torch.arange(len(images)), label_tensor(images))


def label_tensor(samples: Sequence[TextSample] | Sequence[ImageSample]) -> Tensor | None:
    """Return the labels of samples: int64 [samples], or None if they have none."""
    labels = [sample.label for sample in samples if sample.label is not None]
    return torch.tensor(labels) if labels else None
