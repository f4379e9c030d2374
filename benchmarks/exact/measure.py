"""Bytes, seconds, memory and exactness of a scheme on a pair."""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.common.process_usage import run_measured
from benchmarks.exact.pair import Pair
from benchmarks.exact.scheme import LossyPart, Scheme
from benchmarks.exact.worker import Action, Job

FILE, TENSORS = "file", "tensors"
"""What comes back equal: the file with its header, or all tensors only."""


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


def measure(pair: Pair, scheme: Scheme, packages: Path, repeats: int, scratch: Path) -> Row:
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
    scratch : Path
        Folder for temporary files.

    Raises
    ------
    SystemExit
        What comes back is not the fine-tune, or the scheme fails.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        bench = _Bench(pair, scheme, packages, repeats, Path(name))
        _, nothing = bench.run("nothing")
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


class _Bench:
    """A folder in which workers run one after another."""

    def __init__(self, pair: Pair, scheme: Scheme, packages: Path, repeats: int, folder: Path) -> None:
        self._pair, self._scheme, self._packages = pair, scheme, packages
        self._repeats, self._folder = repeats, folder.resolve()
        self._job = self._of("nothing", 1)

    @property
    def decoded(self) -> Path:
        """File of the last decode."""
        return self._job.decoded

    def run(self, action: Action, repeats: int | None = None) -> tuple[float, int]:
        """Return the least seconds and the peak of memory of an action."""
        job = self._of(action, repeats or self._repeats)
        job.write(self._folder / "job.json")
        usage = run_measured([str(self._folder / "job.json")], self._folder, module="benchmarks.exact.worker")
        seconds = json.loads(job.answer.read_text()) if action != "nothing" else 0.0
        return seconds, usage.peak_memory

    def size(self) -> int:
        """Return the bytes that the fine-tune takes."""
        return self._scheme.size(self._job.prepared, self._job.packed)

    def _of(self, action: Action, repeats: int) -> Job:
        pair = self._pair
        base, fine, laid_out = (str(path.resolve()) for path in (pair.base, pair.fine, pair.laid_out))
        packages = str(self._packages.resolve())
        return Job(action, self._scheme.name, pair.name, base, fine, laid_out, str(self._folder), packages, repeats)


def what_is_equal(fine: Path, decoded: Path) -> str | None:
    """Return what of two files is equal: the file by SHA-256, or all tensors bit for bit; None if neither."""
    if sha256(fine) == sha256(decoded):
        return FILE
    ours, theirs = load_file(fine), load_file(decoded)
    alike = ours.keys() == theirs.keys() and all(_equal(ours[name], theirs[name]) for name in ours)
    return TENSORS if alike else None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
        return digest.hexdigest()


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    # By bytes: NaN is equal to itself, and zeros have signs.
    return torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)))
