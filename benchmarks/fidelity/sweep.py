"""All measurements on one fine-tune: our presets as real files, and the peers at each of their settings."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dtscodec
from benchmarks.common.judge import Judge
from benchmarks.demo import data
from benchmarks.demo.finetune import Settings, base_directory, load_model, tokenizer
from benchmarks.fidelity.peers import settings
from benchmarks.fidelity.peers.matrices import Matrices
from benchmarks.fidelity.peers.peer import Setting
from benchmarks.fidelity.points import Point, PointLog, behaviour
from benchmarks.fidelity.tasks import LORA, Task, Weights
from dtscodec.encoding.config import EncodeConfig, Paper
from dtscodec.encoding.targets import RankShare, Size

SIZES = ("0.03%", "0.05%", "0.1%", "0.12%", "0.15%", "0.25%", "0.5%", "1%", "2%", "3%")
AT_PAPERS = "paper's bytes"
PAPER_RANKS = (0.03, 0.1, 0.3)
FEW_SIZES, FEW_RANKS = ("0.1%", "0.25%"), (0.1,)
FEW = 300
"""Texts on which sweeps are judged; the rest of the test split only for what is reported."""
SEEDS = 2
"""Runs of a method that draws random numbers."""
LARGEST = 0.035
"""Settings of more than this share are left out, but for those of methods that have no smaller ones."""


class FineTuneBench:
    """One fine-tune, ready to be measured on; new points go to a log.

    Parameters
    ----------
    task
    cache
        Where fine-tunes and texts lie.
    folder
        Where the log and packs go.
    texts
        Of the test split.
    """

    def __init__(self, task: Task, cache: Path, folder: Path, texts: int) -> None:
        torch.set_num_threads(1)
        self.task, self._folder, self.texts = task, folder, texts
        self.directory = task.directory(cache)
        self.weights = Weights.of(self.directory)
        examples = data.load(task.domain, cache).test[:texts]
        tokens = tokenizer(self.directory, Settings().max_length)
        self.judge = Judge(load_model(self.directory), tokens, examples, self.weights.fine, FEW)
        name = task.name if not task.seed else f"{task.name}-{task.seed}"
        self.log = PointLog(folder / f"{name}.jsonl")

    def file(self, method: str, setting: str, config: EncodeConfig, *, few: bool = False) -> None:
        """Encode to a real file, decode it, and judge the model on the first few texts; on all, too, unless `few`."""
        counts = (FEW,) if few else (self.texts, FEW)
        if self.log.has(method, setting, 0, counts[0]):
            return
        start = time.perf_counter()
        path = self.encode(config)
        seconds = time.perf_counter() - start
        with dtscodec.decode(path, base_directory()) as decoded:
            self.add(method, setting, 0, path.stat().st_size, dict(decoded), seconds, counts)
        path.unlink()

    def encode(self, config: EncodeConfig) -> Path:
        """Encode to a real file."""
        path = self._folder / f"{self.task.name}-{self.task.seed}-{os.getpid()}.safetensors"
        dtscodec.encode(base_directory(), self.directory, path, config, task=self.task.name, force=True)
        return path

    def peer(self, setting: Setting, matrices: Matrices, seed: int, counts: tuple[int, ...] = (FEW,)) -> None:
        """Code the matrices as a peer does; heads count in float16, vectors stay the base's at no cost."""
        if self.log.has(setting.peer, setting.label, seed, counts[0]):
            return
        start = time.perf_counter()
        coded = setting.code(matrices, seed)
        seconds = time.perf_counter() - start
        size = coded.size + self.weights.head_bytes()
        if size <= LARGEST * self.weights.nbytes():
            self.add(setting.peer, setting.label, seed, size, self.weights.decoded(coded.deltas), seconds, counts)

    def add(
        self,
        method: str,
        setting: str,
        seed: int,
        size: int,
        state: Mapping[str, Tensor],
        seconds: float,
        counts: tuple[int, ...],
    ) -> None:
        """Judge a model on the first texts, for each of the counts."""
        error, share = self.weights.error(state), size / self.weights.nbytes()
        fixed = (self.task.name, self.task.seed, method, setting, seed, size, share, error)
        for count in counts:
            figures: dict[str, Any] = behaviour(self.judge.verdict(state, count))
            self.log.add(Point(*fixed, **figures, seconds=round(seconds, 2)))


def ours(bench: FineTuneBench, sizes: Sequence[str] = SIZES, ranks: Sequence[float] = PAPER_RANKS) -> None:
    """Both presets; `best` also at the very bytes of `paper` at its published rank."""
    for rank in ranks:
        bench.file("paper", f"rank {rank}", EncodeConfig(RankShare(rank), Paper()))
    for size in sizes:
        bench.file("best", size, EncodeConfig(target=Size.parse(size)))
    published = next(
        point.bytes for point in bench.log.points if (point.method, point.setting) == ("paper", "rank 0.1")
    )
    bench.file("best", AT_PAPERS, EncodeConfig(target=Size(Fraction(published), "bytes")))


def untouched(bench: FineTuneBench) -> None:
    """The fine-tune itself, and the base with the fine-tune's head."""
    whole = bench.weights.nbytes()
    for method, state, size in (
        ("fine-tune", dict(bench.weights.fine), whole),
        ("base", bench.weights.decoded({}), bench.weights.head_bytes()),
    ):
        if not bench.log.has(method, "", 0, bench.texts):
            bench.add(method, "", 0, size, state, 0.0, (bench.texts, FEW))


def bitdelta(bench: FineTuneBench) -> None:
    """BitDelta on all texts, since it is one of those that `best` is held against."""
    matrices = Matrices(bench.weights.matrices())
    for setting in settings():
        if setting.peer.startswith("BitDelta") and "left" not in setting.label:
            bench.peer(setting, matrices, 0, (bench.texts, FEW))


def peers(bench: FineTuneBench) -> None:
    """Every peer at every setting."""
    matrices = Matrices(bench.weights.matrices())
    for setting, seed in _runs():
        bench.peer(setting, matrices, seed)


def _runs() -> Iterator[tuple[Setting, int]]:
    for setting in settings():
        for seed in range(SEEDS if setting.random else 1):
            yield setting, seed


def sweep(bench: FineTuneBench) -> None:
    """Everything on one fine-tune; of the LoRA only our own presets, and of other seeds those at a few sizes."""
    untouched(bench)
    if bench.task.seed:
        ours(bench, FEW_SIZES, FEW_RANKS)
        return
    ours(bench)
    if bench.task.name != LORA:
        bitdelta(bench)
        peers(bench)
