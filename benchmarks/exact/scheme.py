"""What a lossless scheme does: from files to files, and back."""

from abc import ABC, abstractmethod
from pathlib import Path

from benchmarks.exact.pair import Pair


class Scheme(ABC):
    """A way to store a fine-tune against its base.

    Parameters
    ----------
    name : str
        Name in tables.
    setting : str
        How it is used.
    package : str, optional
        The package on PyPI that must be installed.
    """

    name: str
    setting: str
    package: str | None = None

    def prepare(self, pair: Pair, prepared: Path) -> None:
        """Make what both sides have of the base, in a folder, before any clock starts; by default nothing."""
        return None

    @abstractmethod
    def encode(self, pair: Pair, prepared: Path, packed: Path) -> None:
        """Store the fine-tune in an empty folder; `decode` is the inverse."""

    @abstractmethod
    def decode(self, pair: Pair, prepared: Path, packed: Path, out: Path) -> None:
        """Write the fine-tune as a safetensors file; the inverse of `encode`."""

    def size(self, prepared: Path, packed: Path) -> int:
        """Return the bytes that the fine-tune takes: by default all files of `encode`."""
        return sum(path.stat().st_size for path in packed.rglob("*") if path.is_file())


class LossyPart(Scheme):
    """A scheme whose output can also be decoded in part, to an approximation."""

    @abstractmethod
    def decode_lossy(self, pair: Pair, prepared: Path, packed: Path, out: Path) -> None:
        """Write the approximation as a safetensors file."""
