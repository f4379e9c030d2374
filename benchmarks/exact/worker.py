"""One action of one scheme, in a process of its own on one core: ``python -m benchmarks.exact.worker JOB``."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Action: TypeAlias = Literal["prepare", "encode", "decode", "decode lossy"]
ENOUGH_SECONDS = 20
"""Work is not repeated beyond this."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker does.

    Parameters
    ----------
    action : {"prepare", "encode", "decode", "decode lossy"}
        What is done.
    scheme : str
        Name of the scheme.
    name, base, fine, laid_out : str
        The pair.
    folder : str
        Folder of the scheme's files.
    packages : str
        Folder of the peers' packages.
    repeats : int
        How often the work is done, unless it takes long.
    """

    action: Action
    scheme: str
    name: str
    base: str
    fine: str
    laid_out: str
    folder: str
    packages: str
    repeats: int

    def write(self, path: Path) -> None:
        """Write the job to a file; `read` is the inverse."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Return the job of a file; the inverse of `write`."""
        return cls(**json.loads(path.read_text()))

    @property
    def prepared(self) -> Path:
        """Folder of what is made before clocks start."""
        return Path(self.folder, "prepared")

    @property
    def packed(self) -> Path:
        """Folder of what an encode writes."""
        return Path(self.folder, "packed")

    @property
    def decoded(self) -> Path:
        """File that a decode writes."""
        return Path(self.folder, "decoded.safetensors")

    @property
    def answer(self) -> Path:
        """File of the least seconds."""
        return Path(self.folder, "answer.json")


def main(argv: Sequence[str]) -> int:
    """Do the job of a file and write the seconds that it took; or, for `nothing`, only import torch."""
    stay_on_one_core()
    import torch

    torch.set_num_threads(1)
    if argv == ["nothing"]:
        time.sleep(0.2)  # Long enough to be sampled.
        return 0
    job = Job.read(Path(argv[0]))
    sys.path.append(job.packages)
    job.answer.write_text(json.dumps(_least(*_works(job), job.repeats)))
    return 0


def stay_on_one_core() -> None:
    """Keep this process, and all threads that packages start, on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _works(job: Job) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return what clears the place, and the work."""
    from benchmarks.exact.pair import Pair
    from benchmarks.exact.scheme import LossyPart
    from benchmarks.exact.schemes import SCHEMES

    scheme = SCHEMES[job.scheme]
    pair = Pair(job.name, Path(job.base), Path(job.fine), Path(job.laid_out))
    if job.action == "prepare":
        return lambda: _clear(job.prepared), lambda: scheme.prepare(pair, job.prepared)
    if job.action == "encode":
        return lambda: _clear(job.packed), lambda: scheme.encode(pair, job.prepared, job.packed)
    decode = scheme.decode
    if job.action == "decode lossy":
        assert isinstance(scheme, LossyPart)
        decode = scheme.decode_lossy
    return lambda: job.decoded.unlink(missing_ok=True), lambda: decode(pair, job.prepared, job.packed, job.decoded)


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _least(clear: Callable[[], object], work: Callable[[], object], repeats: int) -> float:
    least, total = float("inf"), 0.0
    for turn in range(repeats):
        if turn and total > ENOUGH_SECONDS:
            break
        clear()
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        least, total = min(least, seconds), total + seconds
    return least


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
