"""How good a model is on texts, and how near to its fine-tune."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import BertForSequenceClassification

from benchmarks.demo.data import Example
from benchmarks.demo.evaluate import Fidelity, fidelity, labels_of
from benchmarks.demo.finetune import batch

BATCH_SIZE = 64
Predict: TypeAlias = Callable[[Mapping[str, Tensor]], Tensor]


class Judge:
    """Some texts as batches, and what the fine-tune says of them.

    Parameters
    ----------
    model
        A skeleton, not in training; whatever weights it has are replaced.
    tokens
    examples
    fine
        The fine-tune's tensors.
    """

    def __init__(
        self,
        model: BertForSequenceClassification,
        tokens: Tokenizer,
        examples: Sequence[Example],
        fine: Mapping[str, Tensor],
    ) -> None:
        encodings = tokens.encode_batch([example.text for example in examples])
        # Texts of about equal length share a batch, so that little of it is padding.
        order = sorted(range(len(examples)), key=lambda row: len(encodings[row].ids))
        parts = [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
        self._batches = [batch([encodings[row].ids for row in rows]) for rows in parts]
        self._places = torch.tensor(order).argsort()
        self._model, self._labels = model, labels_of(examples)
        self._reference = self.logits(fine)

    def logits(self, state: Mapping[str, Tensor]) -> Tensor:
        """Predictions with these weights: [texts, classes]."""
        self._model.load_state_dict(dict(state), strict=True)
        return self._predictions(lambda inputs: self._model(**inputs).logits)

    @torch.inference_mode()
    def _predictions(self, predict: Predict) -> Tensor:
        return torch.cat([predict(inputs) for inputs in self._batches])[self._places]

    def figures(self, state: Mapping[str, Tensor]) -> Fidelity:
        """Accuracy, agreement with the fine-tune, and KL from it."""
        return fidelity(self.logits(state), self._reference, self._labels)

    def figures_of(self, predict: Predict) -> Fidelity:
        """The same of any model: what gives logits, [rows, classes], for a batch's inputs."""
        return fidelity(self._predictions(predict), self._reference, self._labels)
