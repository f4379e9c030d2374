"""One measurement: a method at a setting on a task, in bytes and behaviour."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.json_lines import append_record, read_records


@dataclass(frozen=True, slots=True)
class Key:
    """What a point is known by.

    Parameters
    ----------
    method, setting : str
        What was done to the fine-tune.
    version : str
        Of the code that did it; see `benchmarks.language.code_version`.
    few : bool
        Whether it was judged on the few texts of the sweeps only.
    seed : int
        Of a method that draws random numbers.
    """

    method: str
    setting: str
    version: str
    few: bool
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """Figures of one method at one setting.

    Parameters
    ----------
    task, task_seed : str, int
        The fine-tune.
    method, setting, version, few, seed
        See `Key`.
    calibrated : bool
        Whether calibration texts were used.
    bytes : int
        Everything that a decoder needs beside the base.
    share : float
        `bytes` by the bytes of the fine-tune's tensors.
    error : float
        Relative Frobenius error of the delta.
    texts, tokens, kl, kl_error, agreement, perplexity, fine_perplexity, text_kl, text_tokens
        See `benchmarks.language.judge.Figures`.
    exact_match : float or None
        Share of prompts with the right answer; None for tasks without prompts, and in sweeps.
    prompts : int
        Number of prompts.
    encode_seconds, seconds : float
        Of one core: to encode, and for the whole point.
    """

    task: str
    task_seed: int
    method: str
    setting: str
    version: str
    few: bool
    seed: int
    calibrated: bool
    bytes: int
    share: float
    error: float
    texts: int
    tokens: int
    kl: float
    kl_error: float
    agreement: float
    perplexity: float
    fine_perplexity: float
    text_kl: list[float]
    text_tokens: list[int]
    exact_match: float | None
    prompts: int
    encode_seconds: float
    seconds: float

    @property
    def key(self) -> Key:
        """What it is known by."""
        return Key(self.method, self.setting, self.version, self.few, self.seed)


class PointLog:
    """Points of one fine-tune on disk, one JSON line each.

    Parameters
    ----------
    path : Path
        The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.points = read_records(path, Point)

    def find(self, key: Key) -> Point | None:
        """Return a point that has been measured, or None."""
        return next((point for point in self.points if point.key == key), None)

    def add(self, point: Point) -> None:
        """Append a point."""
        self.points.append(point)
        append_record(self._path, point)
