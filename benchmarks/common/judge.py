"""How near a model's predictions come to its fine-tune's, on the task's frozen test texts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.demo import data
from benchmarks.demo.evaluate import Fidelity, fidelity, labels_of
from benchmarks.demo.finetune import batch, load_model, tokenizer
from benchmarks.fidelity.tasks import Task

BATCH_SIZE = 64
MAX_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Verdict:
    """Figures over some texts, and on which of them the answer is the fine-tune's, or right: bool [n]."""

    figures: Fidelity
    agrees: Tensor
    right: Tensor


class Judge:
    """Holds the model skeleton, the texts as batches, and the fine-tune's own predictions.

    Parameters
    ----------
    task
    directory
        The fine-tune.
    cache
        Where texts lie.
    count
        Texts, the first of the test split.
    """

    def __init__(self, task: Task, directory: Path, cache: Path, count: int) -> None:
        examples = data.load(task.domain, cache).test[:count]
        encodings = tokenizer(directory, MAX_LENGTH).encode_batch([example.text for example in examples])
        self._model = load_model(directory)
        self._labels = labels_of(examples)
        # In the texts' order within each half of them, so that the first few can be judged alone at their own cost.
        self._rows = [rows for part in _parts(len(encodings)) for rows in _by_length(part, encodings)]
        self._batches = [batch([encodings[row].ids for row in rows]) for rows in self._rows]
        self.reference = self._logits(len(examples))

    def judge(self, state: Mapping[str, Tensor], count: int | None = None) -> Verdict:
        """Predict with these weights, on the first `count` texts (of `_parts`; all by default)."""
        self._model.load_state_dict(dict(state), strict=True)
        reference = self.reference[:count]
        logits = self._logits(len(reference))
        labels, answers = self._labels[:count], logits.argmax(dim=1)
        return Verdict(fidelity(logits, reference, labels), answers == reference.argmax(dim=1), answers == labels)

    @torch.inference_mode()
    def _logits(self, count: int) -> Tensor:
        rows = [rows for rows in self._rows if max(rows) < count]
        parts = [self._model(**tensors).logits for tensors, _ in zip(self._batches, rows, strict=False)]
        return torch.cat(parts)[torch.tensor([row for chunk in rows for row in chunk]).argsort()]


FEW = 300
"""Texts on which sweeps are judged; the rest of the test split only for what is reported."""


def _parts(count: int) -> list[range]:
    return [range(min(FEW, count)), range(min(FEW, count), count)]


def _by_length(rows: range, encodings: list) -> list[list[int]]:  # type: ignore[type-arg]
    """Texts of about equal length share a batch, so that little of it is padding."""
    order = sorted(rows, key=lambda row: len(encodings[row].ids))
    return [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
