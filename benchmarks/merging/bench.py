"""The fine-tunes, their texts and their judges, and the log that rows go to."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.common.judge import Judge
from benchmarks.demo import data
from benchmarks.demo.finetune import Settings, base_directory, finetune, load_model, tokenizer
from benchmarks.merging.rows import Row, RowLog

FOUR = tuple(data.FILES)
"""Tasks of two classes, a domain each."""
ACROSS = (data.SIXTEEN, data.SOURCE, data.INTENSITY)
"""Tasks of all domains."""
ALL = (*FOUR, *ACROSS)
TRAINED = 1400
"""Texts that a fine-tune is trained on: the first of its training split."""
CALIBRATION = 512
"""Texts after these, without labels."""
SEARCH = 320
"""Texts after these, with labels, on which alpha is searched."""
TEXTS = 1500
"""Of the frozen test split: all of them."""
HEAD, PREFIX = "classifier.", "bert."

State = Mapping[str, Tensor]


class MergingBench:
    """Fine-tunes, texts, judges and the log, for all parts.

    Parameters
    ----------
    cache
        Where fine-tunes and texts lie.
    folder
        Where files go that are made, and the log.
    """

    def __init__(self, cache: Path, folder: Path) -> None:
        torch.set_num_threads(1)
        self.cache, self.folder, self.base = cache, folder, base_directory()
        folder.mkdir(parents=True, exist_ok=True)
        self.log = RowLog(folder / "rows.jsonl")
        self.judge = lru_cache(None)(self._judge)
        self.searcher = lru_cache(None)(self._searcher)

    def directory(self, task: str) -> Path:
        """A fine-tune; made where it is missing."""
        settings = Settings(task, TRAINED, 2, 0)
        folder = self.cache / settings.key / task
        finetune(self.base, folder, settings, self.cache)
        return folder

    # Tensors

    def fine(self, task: str) -> State:
        """All tensors of a fine-tune."""
        return load_file(self.directory(task) / "model.safetensors")

    def head(self, task: str) -> dict[str, Tensor]:
        """A fine-tune's head."""
        return {name: tensor for name, tensor in self.fine(task).items() if name.startswith(HEAD)}

    @cached_property
    def encoder(self) -> State:
        """The pre-trained base, under the names that fine-tunes have."""
        tensors = load_file(self.base / "model.safetensors")
        return {PREFIX + name: tensor for name, tensor in tensors.items()}

    def with_head(self, encoder: State, task: str) -> dict[str, Tensor]:
        """A model of some encoder and a task's head."""
        fine = self.fine(task)
        return {name: tensor if name.startswith(HEAD) else encoder[name] for name, tensor in fine.items()}

    # Texts

    def training(self, task: str, start: int, count: int) -> Sequence[data.Example]:
        """Some texts of the training split."""
        texts = data.load(task, self.cache).train[start : start + count]
        assert len(texts) == count, f"{task}: {len(texts)} texts from {start}, expected {count}"
        return texts

    def texts_file(self, task: str, count: int, start: int = TRAINED) -> Path:
        """A file of training texts, without labels."""
        path = self.folder / "texts" / f"{task}-{start}-{count}.jsonl"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            lines = [json.dumps({"text": example.text}) for example in self.training(task, start, count)]
            path.write_text("\n".join(lines) + "\n")
        return path

    # Judging

    def _judge(self, task: str) -> Judge:
        return self._judge_of(task, data.load(task, self.cache).test[:TEXTS])

    def _searcher(self, task: str) -> Judge:
        return self._judge_of(task, self.training(task, TRAINED, SEARCH))

    def _judge_of(self, task: str, examples: Sequence[data.Example]) -> Judge:
        directory = self.directory(task)
        return Judge(load_model(directory), tokenizer(directory, Settings().max_length), examples, self.fine(task))

    def row(
        self,
        part: str,
        name: str,
        setting: str,
        task: str,
        make: Callable[[], tuple[State, Mapping[str, float]]],
    ) -> None:
        """Make a model and judge it, unless that was done; other figures of it may come with it."""
        if self.log.has(part, name, setting, task):
            return
        start = time.perf_counter()
        state, others = make()
        made = time.perf_counter() - start
        figures = self.judge(task).verdict(state).figures._asdict()
        self.log.put(Row(part, name, setting, task, {**figures, "seconds": round(made, 2), **others}))
