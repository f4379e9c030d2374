"""A model's next-token predictions on a task's test texts, compared with its fine-tune's, in float32."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.language.finetune import fine_tune
from benchmarks.language.tasks import Task
from benchmarks.language.texts import load_texts
from dtscodec.evaluation.prediction_sums import PredictionSums, compare_predictions

BATCH = 8
ROWS = 128
"""Predictions that are compared at a time: with 49,152 tokens a row of logits takes 0.4 MB in float64."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of a model on test texts of a task.

    Parameters
    ----------
    texts, tokens : int
        Number of texts, and of predicted tokens.
    kl : float
        Mean KL(fine-tune || model) of a predicted token, in nats.
    kl_error : float
        Its standard error, with texts as units.
    agreement : float
        Share of tokens for which both models' most probable token is the same.
    perplexity, fine_perplexity : float
        exp of the mean negative log-likelihood of a token, of the model and of the fine-tune.
    text_kl : tuple of float
        Sum of the KL over the tokens of each text.
    text_tokens : tuple of int
        Number of predicted tokens of each text.
    """

    texts: int
    tokens: int
    kl: float
    kl_error: float
    agreement: float
    perplexity: float
    fine_perplexity: float
    text_kl: tuple[float, ...]
    text_tokens: tuple[int, ...]

    @classmethod
    def of(cls, texts: Sequence[PredictionSums]) -> "Figures":
        """Return the figures of some texts, from the sums over each text's predictions."""
        total = sum(texts, PredictionSums())
        counts = torch.tensor([text.predictions for text in texts], dtype=torch.float64)
        # Rounding can make the sum of a text negative where both models are the same.
        sums = torch.tensor([max(0.0, text.kl) for text in texts], dtype=torch.float64)
        kl = float(sums.sum() / counts.sum())
        # Standard error of a ratio of sums over texts.
        deviations = sums - kl * counts
        error = float((deviations.square().sum() / max(1, len(texts) - 1) * len(texts)) ** 0.5 / counts.sum())
        return cls(
            texts=len(texts),
            tokens=total.predictions,
            kl=kl,
            kl_error=error,
            agreement=total.agreed / total.predictions,
            perplexity=math.exp(total.decoded_loss / total.predictions),
            fine_perplexity=math.exp(total.loss / total.predictions),
            text_kl=tuple(sums.tolist()),
            text_tokens=tuple(text.predictions for text in texts),
        )


class Judge:
    """Compares any weights with a fine-tune on the same test texts.

    Parameters
    ----------
    task : Task
        The fine-tune.
    cache : Path
        Folder of downloads and models.
    tokens : int
        Least number of predicted tokens: texts are added until there are that many.
    few : int, optional
        The same for the texts at the beginning that can be judged alone. No batch mixes them with others.
    """

    def __init__(self, task: Task, cache: Path, tokens: int, few: int = 0) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        directory = fine_tune(task, cache)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(directory)
        self.model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        self.model.train(False)
        self.fine = load_file(directory / "model.safetensors")
        texts = load_texts(task.texts, cache, self.tokenizer).test
        first, every = (_first(texts, self.tokenizer, count) for count in (few, max(few, tokens)))
        few_batches, rest = (list(batches(texts, self.tokenizer)) for texts in (first, every[len(first) :]))
        self._few, self._batches = len(few_batches), few_batches + rest
        # The fine-tune's last hidden states, as they are needed. Its logits would fill the memory: they are computed
        # from these each time.
        self._hidden: list[Tensor] = []
        self._head = self.model.lm_head.weight.detach().clone()

    @torch.inference_mode()
    def _run(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the last hidden states of the model: float32 [texts, tokens, features]."""
        hidden: Tensor = self.model.model(**batch).last_hidden_state
        return hidden

    @torch.inference_mode()
    def load(self, state: Mapping[str, Tensor]) -> Any:
        """Return the model with these weights, in float32. It is the same object every time.

        Parameters
        ----------
        state : mapping of str to Tensor
            Tensors by their names on disk; tensors that are missing remain the fine-tune's.
        """
        self.model.load_state_dict({**self.fine, **state}, strict=False)
        self.model.tie_weights()
        return self.model

    @torch.inference_mode()
    def figures(self, state: Mapping[str, Tensor], *, few: bool = False) -> Figures:
        """Return the figures of a model with these weights.

        Parameters
        ----------
        state : mapping of str to Tensor
            As for `load`.
        few : bool
            Judge on the first few texts only.
        """
        chosen = self._batches[: self._few] if few else self._batches
        if len(self._hidden) < len(chosen):
            self.load({})
            self._hidden += [self._run(batch) for batch in chosen[len(self._hidden) :]]
        self.load(state)
        texts: list[PredictionSums] = []
        for batch, fine_hidden in zip(chosen, self._hidden, strict=False):
            hidden = self._run(batch)
            for row, mask in enumerate(batch["attention_mask"].bool()):
                predicts = mask[1:].nonzero().flatten()
                targets = batch["input_ids"][row, 1:][predicts]
                sums = PredictionSums()
                for part in predicts.split(ROWS):
                    fine_logits = fine_hidden[row, part] @ self._head.T
                    logits = hidden[row, part] @ self.model.lm_head.weight.T
                    sums += compare_predictions(fine_logits, logits, targets[part])
                texts.append(sums)
        return Figures.of(texts)


def _first(texts: Sequence[str], tokenizer: Any, tokens: int) -> list[str]:
    """Return the first texts, in their fixed order, that have a number of predicted tokens."""
    found, count = [], 0
    for text in texts:
        if count >= tokens:
            break
        found.append(text)
        count += len(tokenizer(text).input_ids) - 1
    return found


def batches(texts: Sequence[str], tokenizer: Any) -> Iterator[dict[str, Tensor]]:
    """Yield texts as inputs of the model, padded on the right, texts of like length together."""
    ordered = sorted(texts, key=lambda text: len(tokenizer(text).input_ids))
    for start in range(0, len(ordered), BATCH):
        yield dict(tokenizer(ordered[start : start + BATCH], return_tensors="pt", padding=True, padding_side="right"))
