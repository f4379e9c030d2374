"""A model's predictions on labelled texts, compared with its fine-tune's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from transformers import BertForSequenceClassification

from benchmarks.demo.data import Example
from benchmarks.demo.evaluate import Fidelity, fidelity, labels_of
from benchmarks.demo.finetune import batch

BATCH_SIZE = 64
Predict: TypeAlias = Callable[[Mapping[str, Tensor]], Tensor]
"""The inputs of a batch -> its logits, [texts, classes]."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Figures of a model's predictions on some texts.

    Parameters
    ----------
    figures : Fidelity
        Accuracy, agreement with the fine-tune, and KL from it.
    agrees, right : Tensor
        Texts on which the answer is the fine-tune's, and the label: bool [texts].
    """

    figures: Fidelity
    agrees: Tensor
    right: Tensor


class Judge:
    """Predict with any weights on the same texts, and compare with the fine-tune.

    Parameters
    ----------
    model : BertForSequenceClassification
        A skeleton in evaluation mode; its weights are replaced.
    tokens : Tokenizer
    examples : sequence of Example
    fine : mapping of str to Tensor
        The fine-tune's tensors.
    few : int
        Texts at the beginning that can be judged alone; no batch mixes them with others.
    """

    def __init__(
        self,
        model: BertForSequenceClassification,
        tokens: Tokenizer,
        examples: Sequence[Example],
        fine: Mapping[str, Tensor],
        few: int = 0,
    ) -> None:
        encodings = tokens.encode_batch([example.text for example in examples])
        few = min(few, len(encodings))
        parts = (range(few), range(few, len(encodings)))
        self._rows = [rows for part in parts for rows in rows_by_length(part, encodings)]
        self._batches = [batch([encodings[row].ids for row in rows]) for rows in self._rows]
        self._model, self._labels = model, labels_of(examples)
        self._reference = self.logits(fine)

    def logits(self, state: Mapping[str, Tensor], count: int | None = None) -> Tensor:
        """Return predictions with these weights, [texts, classes]; on the first `count` texts only if it is `few`."""
        self._model.load_state_dict(dict(state), strict=True)
        return self._predictions(lambda inputs: self._model(**inputs).logits, count)

    def verdict(self, state: Mapping[str, Tensor], count: int | None = None) -> Verdict:
        """Judge a model with these weights; on the first `count` texts only if it is `few`."""
        return self._verdict(self.logits(state, count))

    def verdict_of(self, predict: Predict) -> Verdict:
        """Judge any model by the function that gives its logits."""
        return self._verdict(self._predictions(predict))

    def _verdict(self, logits: Tensor) -> Verdict:
        labels, reference = self._labels[: len(logits)], self._reference[: len(logits)]
        answers = logits.argmax(dim=1)
        return Verdict(fidelity(logits, reference, labels), answers == reference.argmax(dim=1), answers == labels)

    @torch.inference_mode()
    def _predictions(self, predict: Predict, count: int | None = None) -> Tensor:
        chosen = [
            (rows, inputs)
            for rows, inputs in zip(self._rows, self._batches, strict=True)
            if count is None or max(rows) < count
        ]
        logits = torch.cat([predict(inputs) for _, inputs in chosen])
        return logits[torch.tensor([row for rows, _ in chosen for row in rows]).argsort()]


def rows_by_length(rows: Iterable[int], encodings: Sequence[Encoding]) -> list[list[int]]:
    """Return batches of rows. Texts of about equal length share one, so that little of it is padding."""
    order = sorted(rows, key=lambda row: len(encodings[row].ids))
    return [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
