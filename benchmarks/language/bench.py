"""One fine-tune, ready to be measured on: methods are run, judged, and their figures kept."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

import dtscodec
from benchmarks.fidelity.peers.matrices import Matrices
from benchmarks.fidelity.peers.peer import Setting
from benchmarks.language.base import base_directory
from benchmarks.language.calibration import Calibration
from benchmarks.language.code_version import CALIBRATION, ENCODER, code_version
from benchmarks.language.exact_match import ExerciseSheet
from benchmarks.language.finetune import fine_tune
from benchmarks.language.judge import Judge
from benchmarks.language.plans import Plan
from benchmarks.language.points import Key, Point, PointLog
from benchmarks.language.tasks import Task
from benchmarks.language.texts import write_samples
from benchmarks.language.weights import Weights
from dtscodec.encoding.config import EncodeConfig

BEST = "best"
CALIBRATED = "best, calibrated"
PAPER = "paper"
DECODED = (BEST, CALIBRATED, PAPER)
"""Our own methods: packs are decoded to bfloat16."""


def unrounded(method: str) -> str:
    """Return the name of one of `DECODED` where its deltas are added to the base in float32, as those of peers are."""
    return f"{method}, in fp32"


UNROUNDED = tuple(map(unrounded, DECODED))
OURS = (*DECODED, *UNROUNDED)


class LanguageBench:
    """One fine-tune; points that are not yet in its log are measured. Nothing is loaded before it is needed.

    Parameters
    ----------
    task : Task
        The fine-tune.
    cache : Path
        Folder of downloads, models and points.
    plan : Plan
        How much is measured.
    only_known : bool
        Measure nothing.
    """

    def __init__(self, task: Task, cache: Path, plan: Plan, *, only_known: bool = False) -> None:
        torch.set_num_threads(1)
        self.task, self.plan, self.calibration = task, plan, Calibration(task, cache)
        self._cache, self._only_known = cache, only_known
        folder = cache / "points"
        folder.mkdir(exist_ok=True)
        name = f"{task.directory(cache).name}-{plan.few}-{plan.tokens}-{plan.prompts}"
        self.log = PointLog(folder / f"{name}.jsonl")
        self.points: list[Point] = []
        """Points of this run, measured now or before."""

    @cached_property
    def directory(self) -> Path:
        """Directory of the fine-tune."""
        return fine_tune(self.task, self._cache)

    @cached_property
    def weights(self) -> Weights:
        """Tensors of base and fine-tune."""
        return Weights.of(self.task, self._cache)

    @cached_property
    def _matrices(self) -> Matrices:
        return Matrices(self.weights.matrices(), self._cache / "svds" / self.directory.name)

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self.task, self._cache, self.plan.tokens, self.plan.few)

    @cached_property
    def _exercises(self) -> ExerciseSheet:
        return ExerciseSheet(self._judge.tokenizer, self.plan.prompts)

    def untouched(self, method: str, state: Callable[[], Mapping[str, Tensor]]) -> None:
        """Judge the base, or the fine-tune itself."""
        for few in (True, False):
            key = Key(method, "", "", few)
            if self._needs(key):
                self._add(key, 0, state(), calibrated=False, start=time.process_time(), encode_seconds=0.0)

    def ours(self, method: str, setting: str, config: Callable[[], EncodeConfig], *, calibrated: bool = False) -> None:
        """Encode to a real file, decode it, and judge the model: on all texts, too, if the setting is promised.

        Parameters
        ----------
        method, setting : str
            How the point is known.
        config : callable
            Returns the settings of the encoder.
        calibrated : bool
            Fit the pack to the calibration texts.
        """
        version = code_version(CALIBRATION if calibrated else ENCODER)
        promised = setting in self.plan.promised or method == PAPER
        keys = [Key(method, setting, version, few) for few in ((False, True) if promised else (True,))]
        if method in DECODED:
            keys.append(Key(unrounded(method), setting, version, True))
        missing = [key for key in keys if self._needs(key)]
        if not missing:
            return
        start = time.process_time()
        with tempfile.TemporaryDirectory(dir=self._cache) as folder:
            path = Path(folder, "pack.safetensors")
            if calibrated:
                samples = write_samples(self.calibration.texts, Path(folder, "samples.jsonl"))
                base = base_directory(self._cache)
                dtscodec.encode_calibrated(
                    base, self.directory, path, config(), samples=samples, steps=self.plan.steps, task=self.task.name
                )
            else:
                dtscodec.encode(base_directory(self._cache), self.directory, path, config(), task=self.task.name)
            seconds, size = time.process_time() - start, path.stat().st_size
            with dtscodec.decode(path, base_directory(self._cache)) as decoded:
                state = dict(decoded)
            for key in missing:
                weights = self._unrounded(path, state) if key.method in UNROUNDED else state
                self._add(key, size, weights, calibrated=calibrated, start=start, encode_seconds=seconds)
                start = time.process_time()

    def _unrounded(self, path: Path, decoded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a pack in float32; tensors that are stored exactly as they are decoded."""
        state = dict(decoded)
        with dtscodec.open(path) as pack:
            for name, base in self.weights.base.items():
                with contextlib.suppress(ValueError):
                    state[name] = base.float() + torch.from_numpy(pack.delta(name))
        return state

    def peer(self, setting: Setting, version: str, seed: int) -> None:
        """Code the matrices as a peer does, and judge the model on the few texts.

        Parameters
        ----------
        setting : Setting
            What the peer does.
        version : str
            Of the peer's code.
        seed : int
            For peers that draw random numbers.
        """
        key = Key(setting.peer, setting.label, version, True, seed)
        if not self._needs(key):
            return
        start = time.process_time()
        coded = setting.code(self._matrices, seed)
        seconds = time.process_time() - start
        state = self.weights.decoded(coded.deltas)
        self._add(key, coded.size, state, calibrated=setting.calibrated, start=start, encode_seconds=seconds)

    def _needs(self, key: Key) -> bool:
        """Return whether a point is to be measured. One that was measured before is one of this run."""
        point = self.log.find(key)
        if point:
            self.points.append(point)
        return point is None and not self._only_known

    def _add(
        self,
        key: Key,
        size: int,
        state: Mapping[str, Tensor],
        *,
        calibrated: bool,
        start: float,
        encode_seconds: float,
    ) -> None:
        figures = self._judge.figures(state, few=key.few)
        asked = self.task.texts == "exercises" and not key.few
        right = self._exercises.exact_match(self._judge.load(state)) if asked else None
        point = Point(
            task=self.task.name,
            task_seed=self.task.seed,
            method=key.method,
            setting=key.setting,
            version=key.version,
            few=key.few,
            seed=key.seed,
            calibrated=calibrated,
            bytes=size,
            share=size / self.weights.nbytes,
            error=self.weights.error(state),
            texts=figures.texts,
            tokens=figures.tokens,
            kl=figures.kl,
            kl_error=figures.kl_error,
            agreement=figures.agreement,
            perplexity=figures.perplexity,
            fine_perplexity=figures.fine_perplexity,
            text_kl=[float(f"{value:.6g}") for value in figures.text_kl],
            text_tokens=list(figures.text_tokens),
            exact_match=right,
            prompts=self.plan.prompts if asked else 0,
            encode_seconds=round(encode_seconds, 1),
            seconds=round(time.process_time() - start, 1),
        )
        self.log.add(point)
        self.points.append(point)
        print(
            f"{self.task.name}: {key.method} {key.setting}, {100 * point.share:.3f} %: KL {point.kl:.5f}, agrees "
            f"{100 * point.agreement:.1f} %, {point.seconds:.0f} s",
            flush=True,
        )
