"""The fine-tunes of both benchmarks."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from benchmarks.codes.errors import Sample
from benchmarks.codes.points import CodedTask, Figures
from benchmarks.demo.finetune import base_directory as encoder_directory
from benchmarks.fidelity.sweep import FineTuneBench
from benchmarks.fidelity.tasks import PREFIX
from benchmarks.fidelity.tasks import Task as EncoderTask
from benchmarks.language.base import base_directory as language_directory
from benchmarks.language.finetune import fine_tune
from benchmarks.language.judge import Judge
from benchmarks.language.tasks import FULL
from benchmarks.language.tasks import Task as LanguageTask

TOKENS = 2_048
TEXTS = 600


class EncoderFineTune(CodedTask):
    """A fine-tune of the encoder; see `benchmarks.fidelity`."""

    benchmark = "encoder"

    @staticmethod
    def sample(name: str, cache: Path) -> Sample:
        """Return the matrices of the fourth layer."""
        fine = EncoderTask(name).directory(cache)
        return Sample.of(fine, encoder_directory(), PREFIX, (3,))

    def __init__(self, name: str, cache: Path, folder: Path) -> None:
        self._bench = FineTuneBench(EncoderTask(name), cache, folder, TEXTS)
        super().__init__(name, self._bench.directory, encoder_directory(), PREFIX, folder)

    def judge(self, state: Mapping[str, Tensor]) -> Figures:
        """See `CodedTask`."""
        return self._bench.judge.verdict(state).figures


def _task(name: str) -> LanguageTask:
    return next(task for task in FULL if task.name == name)


class LanguageFineTune(CodedTask):
    """A fine-tune of the language model; see `benchmarks.language`."""

    benchmark = "language"

    @staticmethod
    def sample(name: str, cache: Path) -> Sample:
        """Return the matrices of the fifteenth layer."""
        return Sample.of(fine_tune(_task(name), cache), language_directory(cache), "", (14,))

    def __init__(self, name: str, cache: Path, folder: Path) -> None:
        task = _task(name)
        super().__init__(name, fine_tune(task, cache), language_directory(cache), "", folder)
        self._judge = Judge(task, cache, TOKENS)

    def judge(self, state: Mapping[str, Tensor]) -> Figures:
        """See `CodedTask`."""
        return self._judge.figures(state)
