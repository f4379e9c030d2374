"""A training run of the language model, saved every few steps in bfloat16, as weights are sent to inference engines.

Weights are trained in fp32; a save is their rounding. The cache has each save as a link: its difference from the save
before it, as `peers.xor_planes` writes it. A run that was interrupted goes on from its last state.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.exact.peers.xor_planes import decode_planes, encode_planes
from benchmarks.language.base import base_directory
from benchmarks.language.finetune import batches, rate_factor, take_step
from benchmarks.language.tasks import Task
from benchmarks.language.texts import load_texts

SAVES_A_STATE = 5
"""The state of training is kept so often: it is six times as large as a save."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A run.

    Parameters
    ----------
    name : str
        Its name in tables.
    task : Task
        Texts, peak learning rate, number of steps and seed.
    every : int
        Steps from one save to the next.
    constant : bool
        Whether the learning rate is the same in all steps; otherwise it rises and falls, as in all fine-tunes of
        `benchmarks.language`.
    """

    name: str
    task: Task
    every: int
    constant: bool = False

    @property
    def saves(self) -> int:
        """Number of saves after the base."""
        return self.task.steps // self.every

    def directory(self, cache: Path) -> Path:
        """Return the folder of the links, named after all settings."""
        kind = "constant" if self.constant else "cosine"
        task = self.task
        return cache / "runs" / f"{task.name}-{task.rate:g}-{kind}-{task.steps}-{self.every}-{task.seed}"


def base_file(cache: Path) -> Path:
    """Return the file of save 0, the base."""
    return base_directory(cache) / "model.safetensors"


def saved_files(run: TrainingRun, cache: Path, folder: Path) -> Iterator[Path]:
    """Yield the files of all saves in order, from the links; a file and the one before it exist at the same time.

    Parameters
    ----------
    run : TrainingRun
        A run; it is trained first, as far as it is not.
    cache : Path
        As of `benchmarks.language`.
    folder : Path
        Where the files are written.
    """
    train(run, cache)
    before = base_file(cache)
    for number in range(1, run.saves + 1):
        after = folder / f"save-{number:03}.safetensors"
        decode_planes(before, _link(run.directory(cache), number), after)
        yield after
        if number > 1:
            before.unlink()
        before = after


def train(run: TrainingRun, cache: Path) -> None:
    """Train a run to its end, from where it stopped; do nothing if it is complete."""
    folder = run.directory(cache)
    folder.mkdir(parents=True, exist_ok=True)
    if not _link(folder, run.saves).exists() or (folder / _Training.STATE).exists():
        _Training(run, cache).go_on()


def _link(folder: Path, number: int) -> Path:
    return folder / f"{number:03}.planes"


class _Training:
    """Model, optimizer and place of a run."""

    STATE = "state.pt"

    def __init__(self, run: TrainingRun, cache: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._run, self._cache, self._folder = run, cache, run.directory(cache)
        task, base = run.task, base_directory(cache)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(base)
        self._model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        torch.manual_seed(task.seed)
        self._model.train()
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=task.rate)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._factor)
        self._names = list(load_file(base_file(cache)))
        self._saved = self._resume()

    def go_on(self) -> None:
        """Take the steps that are left, and write their saves."""
        run, task = self._run, self._run.task
        pieces, start = load_texts(task.texts, self._cache, self._tokenizer).train, time.perf_counter()
        inputs = batches(pieces, self._tokenizer, task.steps, task.seed)
        taken = self._saved * run.every
        previous = self._write(self._saved) if self._saved else base_file(self._cache)
        for step, batch in enumerate(islice(inputs, taken, None), start=taken + 1):
            loss = take_step(self._model, batch, self._optimizer, self._schedule)
            if step % run.every == 0:
                previous = self._save(step // run.every, previous)
                seconds = time.perf_counter() - start
                print(f"{run.name}: step {step} of {task.steps}, loss {loss:.3f}, {seconds:.0f} s", flush=True)
        for path in (self._folder / self.STATE, self._file(run.saves)):
            path.unlink(missing_ok=True)

    def _factor(self, step: int) -> float:
        return 1.0 if self._run.constant else rate_factor(step, self._run.task.steps)

    def _resume(self) -> int:
        """Return the number of the last save whose state is known, after loading it."""
        path = self._folder / self.STATE
        if not path.exists():
            return 0
        state = torch.load(path, weights_only=True)
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        return int(state["saved"])

    def _save(self, number: int, previous: Path) -> Path:
        """Write the link of a save, and sometimes the state; return the file of the save."""
        path, link = self._write(number), _link(self._folder, number)
        encode_planes(previous, path, link.with_suffix(".part"), level=1)
        link.with_suffix(".part").rename(link)
        if number > 1:
            previous.unlink()
        if number % SAVES_A_STATE == 0:
            self._keep_state(number)
        return path

    def _write(self, number: int) -> Path:
        """Write the file of a save: the base's tensors, rounded to bfloat16."""
        state: dict[str, Tensor] = self._model.state_dict()
        rounded = {name: state[name].to(torch.bfloat16) for name in self._names}
        save_file(rounded, self._file(number), {"format": "pt"})
        return self._file(number)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:03}.safetensors"

    def _keep_state(self, number: int) -> None:
        state = {
            "saved": number,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }
        part = self._folder / "state.part"
        torch.save(state, part)
        part.rename(self._folder / self.STATE)
