"""What a calibrated method may see beside the deltas: both models, and texts that are neither trained on nor judged."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.language.base import base_directory
from benchmarks.language.finetune import fine_tune
from benchmarks.language.judge import batches
from benchmarks.language.tasks import Task
from benchmarks.language.texts import load_texts

TEXTS = 64
"""Number of calibration texts."""


class Calibration:
    """Calibration texts of a task, and its base and fine-tune. Nothing is read before it is asked for.

    Parameters
    ----------
    task : Task
        The fine-tune.
    cache : Path
        Folder of downloads and models.
    """

    def __init__(self, task: Task, cache: Path) -> None:
        self._task, self._cache = task, cache

    @property
    def base(self) -> Path:
        """Directory of the base."""
        return base_directory(self._cache)

    @property
    def fine_tune(self) -> Path:
        """Directory of the fine-tune."""
        return fine_tune(self._task, self._cache)

    @cached_property
    def texts(self) -> Sequence[str]:
        """The first `TEXTS` calibration texts, in their fixed order."""
        return load_texts(self._task.texts, self._cache, self._tokenizer).calibration[:TEXTS]

    @cached_property
    def batches(self) -> Sequence[Mapping[str, Tensor]]:
        """Inputs of the models: `input_ids` and `attention_mask`, int64 [texts, tokens], padded on the right."""
        return list(batches(self.texts, self._tokenizer))

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.base)

    def load_model(self, directory: Path, deltas: Mapping[str, Tensor] | None = None) -> Any:
        """Return a model in float32 and evaluation mode.

        Parameters
        ----------
        directory : Path
            Of the base or the fine-tune.
        deltas : mapping of str to float32 Tensor, optional
            Added to its weights, by their names on disk.
        """
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, delta in (deltas or {}).items():
                parameters[name] += delta
        return model.train(False)
