"""Facts about a pack, as values: gathered once, then shown as a page or as JSON."""

from dataclasses import asdict, dataclass
from math import isfinite, sqrt
from typing import Any

from dtscodec.format.summary import BaseRef
from dtscodec.quantize.widths import ALL_BITS

CODE_PARTS = tuple(str(bits) for bits in ALL_BITS)
"""Codes, by their width."""

PARTS = (*CODE_PARTS, "numbers", "exact")
"""Parts of a tensor's bytes: codes of a width, norms with scales and levels, exact bytes."""


@dataclass(frozen=True, slots=True)
class TensorStatistics:
    """One tensor.

    Parameters
    ----------
    name, dtype, kind : str
    shape : tuple of int
    depth : int or None
        Number of its layer.
    module : str
        Its name within a layer.
    elements, size : int
        Its elements, and the bytes that the pack spends on them.
    ranks : tuple of int
        Components of each low-rank block.
    parts : dict
        Bytes by `PARTS`; they add up to `size`.
    spectra : tuple of tuple of float
        For each low-rank block the norms of its components as they are decoded, descending.
    reason : str or None
        Why it is stored otherwise than as a difference, if it is.
    exact : bool or None
        Whether it comes back bit for bit; None if no fine-tune was given.
    delta_square, error_square : float or None
        Squared norms of the true difference and of what is missing of it; None where nothing could be measured.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: str
    depth: int | None
    module: str
    elements: int
    size: int
    ranks: tuple[int, ...]
    parts: dict[str, int]
    spectra: tuple[tuple[float, ...], ...]
    reason: str | None
    exact: bool | None = None
    delta_square: float | None = None
    error_square: float | None = None

    @property
    def rank(self) -> float | None:
        """Mean rank of its blocks."""
        return sum(self.ranks) / len(self.ranks) if self.ranks else None

    @property
    def bits(self) -> float:
        """Bits for each element."""
        return 8 * self.size / max(1, self.elements)

    @property
    def error(self) -> float | None:
        """Relative error of its difference."""
        return relative(self.error_square, self.delta_square)


@dataclass(frozen=True, slots=True)
class KindStatistics:
    """A kind of storage: how many tensors or files are of it, their elements, and bytes."""

    kind: str
    count: int | None
    parameters: int | None
    size: int


@dataclass(frozen=True, slots=True)
class FileStatistics:
    """A file that travels: its size, and what is stored of it; None for one that lies beside the base."""

    name: str
    size: int | None = None
    stored: int | None = None


@dataclass(frozen=True, slots=True)
class PackCloseness:
    """The whole pack against its fine-tune, over all that is coded."""

    error: float | None
    cosine: float | None
    norm_ratio: float | None


@dataclass(frozen=True, slots=True)
class PackStatistics:
    """One pack.

    Parameters
    ----------
    name : str
        Of its file.
    id, task, encoder, base
        From the summary.
    size, parameters, fine_tune_size : int
        Bytes of the file; elements and bytes of the tensors that it stands for.
    kinds : tuple of KindStatistics
        They add up to `size`.
    files : tuple of FileStatistics
    absent : tuple of str
        Tensors that only the base has.
    tensors : tuple of TensorStatistics
        Names ascending.
    closeness : PackCloseness, optional
        If the fine-tune was given.
    """

    name: str
    id: str
    task: str | None
    encoder: str | None
    base: BaseRef | None
    size: int
    parameters: int
    fine_tune_size: int
    kinds: tuple[KindStatistics, ...]
    files: tuple[FileStatistics, ...]
    absent: tuple[str, ...]
    tensors: tuple[TensorStatistics, ...]
    closeness: PackCloseness | None = None

    @property
    def title(self) -> str:
        """Its task, or else its file's name."""
        return self.task or self.name

    @property
    def bits(self) -> float:
        """Bits of the file for each parameter."""
        return 8 * self.size / max(1, self.parameters)


@dataclass(frozen=True, slots=True)
class DirectoryStatistics:
    """A directory of packs, by task."""

    name: str
    packs: dict[str, PackStatistics]


def as_json(facts: PackStatistics | DirectoryStatistics) -> dict[str, Any]:
    """Facts as JSON holds them."""
    if isinstance(facts, DirectoryStatistics):
        return {"name": facts.name, "packs": {task: as_json(pack) for task, pack in facts.packs.items()}}
    return asdict(facts)


def finite(value: float | None) -> float | None:
    """The value, if it is a number; a hostile pack may decode to none."""
    return value if value is not None and isfinite(value) else None


def relative(error_square: float | None, delta_square: float | None) -> float | None:
    """Norm of the error by norm of the delta, if there is one."""
    return finite(sqrt(error_square / delta_square)) if error_square is not None and delta_square else None
