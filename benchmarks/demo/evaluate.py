"""Predictions of a model on texts, and their distance from another model's."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import BertForSequenceClassification

from benchmarks.demo.data import Example
from benchmarks.demo.finetune import batch, load_model, progress, reproducibly, tokenizer

BATCH_SIZE = 64


class Fidelity(NamedTuple):
    """A model on a test set, beside the fine-tune that it stands for."""

    accuracy: float
    agreement: float
    kl: float


def fidelity(logits: Tensor, reference: Tensor, labels: Tensor) -> Fidelity:
    """Share of right answers, share of the reference's answers, and mean KL(reference || model) in nats.

    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> fidelity(logits, logits, torch.tensor([0, 0]))
    Fidelity(accuracy=0.5, agreement=1.0, kl=0.0)
    """
    model, target = (torch.log_softmax(x.double(), dim=1) for x in (logits, reference))
    answers = logits.argmax(dim=1)
    return Fidelity(
        accuracy=(answers == labels).double().mean().item(),
        agreement=(answers == reference.argmax(dim=1)).double().mean().item(),
        kl=(target.exp() * (target - model)).sum(dim=1).mean().item(),
    )


def majority(labels: Tensor) -> float:
    """Accuracy of always giving the more frequent answer."""
    return labels.bincount().max().item() / len(labels)


def labels_of(examples: Sequence[Example]) -> Tensor:
    """Classes of the examples, in order."""
    return torch.tensor([example.label for example in examples])


def directory_logits(directory: Path, examples: Sequence[Example], max_length: int) -> Tensor:
    """Predictions of a model directory as it stands, with its own tokenizer."""
    return _logits(load_model(directory), directory, examples, max_length)


def base_logits(base: Path, finetuned: Path, examples: Sequence[Example], max_length: int) -> Tensor:
    """Predictions of the untrained encoder below the fine-tune's head, as the base has no head of its own."""
    tuned = load_model(finetuned)
    model = load_model(base, num_labels=tuned.config.num_labels)
    model.classifier.load_state_dict(tuned.classifier.state_dict())
    return _logits(model, base, examples, max_length)


@torch.inference_mode()
def _logits(
    model: BertForSequenceClassification, directory: Path, examples: Sequence[Example], max_length: int
) -> Tensor:
    encodings = tokenizer(directory, max_length).encode_batch([example.text for example in examples])
    # Texts of about equal length share a batch, so that little of it is padding.
    order = sorted(range(len(encodings)), key=lambda row: len(encodings[row].ids))
    batches = [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
    with reproducibly(0):
        inputs = (batch([encodings[row].ids for row in rows]) for rows in progress(batches, "testing"))
        parts = [model(**tensors).logits for tensors in inputs]
    return torch.cat(parts)[torch.tensor(order).argsort()]
