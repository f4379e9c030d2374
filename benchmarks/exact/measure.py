"""Bytes, seconds, memory and exactness of a scheme on a pair."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.process_usage import run_measured
from benchmarks.exact.equality import what_is_equal
from benchmarks.exact.pair import Pair
from benchmarks.exact.scheme import LossyPart, Scheme
from benchmarks.exact.worker import Action, Job


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of a scheme on a pair.

    Parameters
    ----------
    pair, scheme, setting : str
        What was measured.
    raw, weights, largest : int
        Bytes of the fine-tune, its weights, and bytes of its largest tensor.
    bytes : int
        Bytes that it takes.
    encode, decode : float
        Least seconds on one core, from files to files.
    encode_memory, decode_memory : int
        Peaks of anonymous memory in bytes, beyond what importing torch takes.
    lossy_decode : float or None
        Seconds of a decode without the residual layer.
    equal : {"file", "tensors"}
        What came back equal.
    """

    pair: str
    scheme: str
    setting: str
    raw: int
    weights: int
    largest: int
    bytes: int
    encode: float
    decode: float
    encode_memory: int
    decode_memory: int
    lossy_decode: float | None
    equal: str

    @property
    def share(self) -> float:
        """Bytes by those of the fine-tune."""
        return self.bytes / self.raw

    @property
    def bits(self) -> float:
        """Bits a weight."""
        return 8 * self.bytes / self.weights


def measure(pair: Pair, scheme: Scheme, packages: Path, repeats: int, nothing: int, scratch: Path) -> Row:
    """Return the figures of a scheme on a pair.

    Parameters
    ----------
    pair : Pair
        The pair.
    scheme : Scheme
        One of `benchmarks.exact.schemes.SCHEMES`.
    packages : Path
        Folder of the peers' packages.
    repeats : int
        How often each piece of work is done; the least time counts.
    nothing : int
        Memory that is not counted; see `memory_of_torch`.
    scratch : Path
        Folder for temporary files.

    Raises
    ------
    SystemExit
        What comes back is not the fine-tune, or the scheme fails.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        bench = _Bench(pair, scheme, packages, repeats, Path(name))
        if type(scheme).prepare is not Scheme.prepare:
            bench.run("prepare", repeats=1)
        encode, encode_memory = bench.run("encode")
        decode, decode_memory = bench.run("decode")
        equal = what_is_equal(pair.fine, bench.decoded)
        if equal is None:
            raise SystemExit(f"{pair.name}, {scheme.name}: what was decoded is not the fine-tune")
        lossy = bench.run("decode lossy")[0] if isinstance(scheme, LossyPart) else None
        return Row(
            pair=pair.name,
            scheme=scheme.name,
            setting=scheme.setting,
            raw=pair.size,
            weights=pair.weights(),
            largest=pair.largest_tensor(),
            bytes=bench.size(),
            encode=encode,
            decode=decode,
            encode_memory=encode_memory - nothing,
            decode_memory=decode_memory - nothing,
            lossy_decode=lossy,
            equal=equal,
        )


def memory_of_torch(scratch: Path) -> int:
    """Return the peak of anonymous memory of a worker that only imports torch, in bytes."""
    return run_measured(["nothing"], scratch, module="benchmarks.exact.worker").peak_memory


class _Bench:
    """A folder in which workers run one after another."""

    def __init__(self, pair: Pair, scheme: Scheme, packages: Path, repeats: int, folder: Path) -> None:
        self._pair, self._scheme, self._packages = pair, scheme, packages
        self._repeats, self._folder = repeats, folder.resolve()
        self._job = self._of("encode", 1)

    @property
    def decoded(self) -> Path:
        """File of the last decode."""
        return self._job.decoded

    def run(self, action: Action, repeats: int | None = None) -> tuple[float, int]:
        """Return the least seconds and the peak of memory of an action."""
        job = self._of(action, repeats or self._repeats)
        job.write(self._folder / "job.json")
        usage = run_measured([str(self._folder / "job.json")], self._folder, module="benchmarks.exact.worker")
        return float(json.loads(job.answer.read_text())), usage.peak_memory

    def size(self) -> int:
        """Return the bytes that the fine-tune takes."""
        return self._scheme.size(self._job.prepared, self._job.packed)

    def _of(self, action: Action, repeats: int) -> Job:
        pair = self._pair
        base, fine, laid_out = (str(path.resolve()) for path in (pair.base, pair.fine, pair.laid_out))
        packages = str(self._packages.resolve())
        return Job(action, self._scheme.name, pair.name, base, fine, laid_out, str(self._folder), packages, repeats)
