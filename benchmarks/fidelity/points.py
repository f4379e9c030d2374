"""One measurement: a method at a setting on a task, in bytes and behaviour."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common.json_lines import append_record, read_records
from benchmarks.common.judge import Verdict


@dataclass(frozen=True, slots=True)
class Point:
    """Figures of one method at one setting.

    Parameters
    ----------
    task, task_seed
        The fine-tune.
    method, setting, seed
        What was done to it; the seed of random methods.
    bytes, share
        Everything counted; by the bytes of the fine-tune's tensors.
    error
        Relative Frobenius error of the delta.
    texts, accuracy, agreement, kl
        Behaviour on that number of texts.
    agrees
        Bitmap of the texts with the fine-tune's answer, as hex.
    seconds
        To encode.
    """

    task: str
    task_seed: int
    method: str
    setting: str
    seed: int
    bytes: int
    share: float
    error: float
    texts: int
    accuracy: float
    agreement: float
    kl: float
    agrees: str
    seconds: float

    @property
    def agreeing(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
        """Which texts get the fine-tune's answer: bool [texts]."""
        return np.unpackbits(np.frombuffer(bytes.fromhex(self.agrees), np.uint8))[: self.texts].astype(bool)


def behaviour(verdict: Verdict) -> dict[str, float | int | str]:
    """The fields of a `Point` that a verdict gives."""
    agrees = np.packbits(verdict.agrees.numpy()).tobytes().hex()
    return {"texts": len(verdict.agrees), **verdict.figures._asdict(), "agrees": agrees}


class PointLog:
    """Points of one fine-tune on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.points = read_records(path, Point)
        self._known = {self._key(point) for point in self.points}

    @staticmethod
    def _key(point: Point) -> tuple[str, str, int, int]:
        return point.method, point.setting, point.seed, point.texts

    def has(self, method: str, setting: str, seed: int, texts: int) -> bool:
        """Return whether a point has been measured."""
        return (method, setting, seed, texts) in self._known

    def add(self, point: Point) -> None:
        """Append a point."""
        self.points.append(point)
        self._known.add(self._key(point))
        append_record(self._path, point)
