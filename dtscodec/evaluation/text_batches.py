"""Texts + tokenizer -> batches that a model takes."""

from collections.abc import Iterator, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from dtscodec.errors import CheckpointError, SamplesError
from dtscodec.evaluation.architecture import Architecture
from dtscodec.evaluation.sample_batches import SampleBatch, label_tensor
from dtscodec.evaluation.text_samples import TextSample
from dtscodec.evaluation.transformers_library import transformers_errors


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
    tokens : int, optional
        Largest number of tokens in a batch, with padding. Longer texts are truncated to it.
    """

    def __init__(
        self, architecture: Architecture, tokenizer: Any, model: Any, size: int, tokens: int | None = None
    ) -> None:
        self._directory, self._is_causal = architecture.directory, architecture.classes is None
        self._tokenizer, self._tokens = tokenizer, tokens
        lengths = max_tokens(model, tokenizer), tokens
        self._length = min((length for length in lengths if length is not None), default=None)
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
        counts = self._counts(ordered) if self._tokens is not None else None
        begin = 0
        while begin < len(ordered):
            end = min(begin + self._size, len(ordered))
            # With padding, a batch has as many tokens per text as its longest text.
            while counts and end - begin > 1 and self._padded(counts[begin:end]) > (self._tokens or 0):
                end -= 1
            long = sum(count > (self._length or count) for count in counts[begin:end]) if counts else 0
            yield self._batch(ordered[begin:end], long)
            begin = end

    def _counts(self, texts: Sequence[TextSample]) -> list[int]:
        """Return the number of tokens of each text."""
        with transformers_errors(str(self._directory), "a tokenizer that takes these texts"):
            return [len(ids) for ids in self._tokenizer([text.text for text in texts])["input_ids"]]

    def _padded(self, counts: Sequence[int]) -> int:
        longest = max(counts)
        return len(counts) * (longest if self._length is None else min(longest, self._length))

    def _batch(self, texts: Sequence[TextSample], truncated: int) -> SampleBatch:
        inputs = self._encode(texts)
        tokens, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        # An id beyond the embedding would make the model fail with an error that does not name the cause.
        if tokens.numel() and int(tokens.max()) >= self._vocabulary:
            detail = f"expected a tokenizer of at most {self._vocabulary} tokens, as the model has, got token"
            raise CheckpointError(f"{self._directory}: {detail} {int(tokens.max())}")
        places, targets = _next_tokens(tokens, mask) if self._is_causal else _labels(texts, mask)
        rows = tokens.shape[1] if self._is_causal else 1
        inputs = {name: tensor for name, tensor in inputs.items() if name in self._parameters}
        return SampleBatch(len(texts), inputs, places, targets, rows, truncated)

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
