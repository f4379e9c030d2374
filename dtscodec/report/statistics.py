"""Statistics of a pack, as values that a page or JSON shows."""

from dataclasses import asdict, dataclass
from math import isfinite, sqrt
from typing import Any

from dtscodec.format.claim import Claim
from dtscodec.format.summary import BaseRef
from dtscodec.packs.claims import claim_facts
from dtscodec.quantize.widths import ALL_BITS

CODE_PARTS = tuple(str(bits) for bits in ALL_BITS)
"""Names of the parts that are codes: their widths."""

PARTS = (*CODE_PARTS, "numbers", "exact")
"""Parts of a tensor's bytes: codes of each width; norms, scales and levels; exact bytes."""


@dataclass(frozen=True, slots=True)
class TensorStatistics:
    """Statistics of one tensor.

    Parameters
    ----------
    name : str
        Its name in the fine-tune.
    dtype : str
        Its dtype, as safetensors names it.
    shape : tuple of int
        Its shape.
    kind : str
        Kind of its blocks, or ``"mixed"``.
    depth : int or None
        Number of its layer; None outside of layers.
    module : str
        Its name within a layer.
    elements : int
        Number of its elements.
    size : int
        Bytes that the pack takes for it.
    ranks : tuple of int
        Number of components of each low-rank block.
    parts : dict
        Bytes by `PARTS`; they add up to `size`.
    spectra : tuple of tuple of float
        For each low-rank block the norms of its decoded components, descending.
    reason : str or None
        Why it is stored exactly or coded without a base; None if it is stored as a delta.
    exact : bool or None
        Whether it decodes to the fine-tune's bytes; None if no fine-tune was given.
    delta_square : float or None
        Squared norm of the true delta; None if it was not measured.
    error_square : float or None
        Squared norm of the decoded delta minus the true one; None if it was not measured.
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
        """Mean rank of its blocks; None if none is of low rank."""
        return sum(self.ranks) / len(self.ranks) if self.ranks else None

    @property
    def bits(self) -> float:
        """Bits per element."""
        return 8 * self.size / max(1, self.elements)

    @property
    def error(self) -> float | None:
        """Relative error of its decoded delta; None if it was not measured."""
        return relative(self.error_square, self.delta_square)


@dataclass(frozen=True, slots=True)
class KindStatistics:
    """Statistics of one kind of storage.

    Parameters
    ----------
    kind : str
        A kind of blocks, ``"files"``, ``"bitmaps"``, ``"overhead"`` or ``"residual"``.
    count : int or None
        Number of tensors or files of the kind; None for a kind that is shared by all.
    parameters : int or None
        Number of their elements; None for a kind without elements.
    size : int
        Bytes of the pack file.
    """

    kind: str
    count: int | None
    parameters: int | None
    size: int


@dataclass(frozen=True, slots=True)
class FileStatistics:
    """Statistics of an auxiliary file.

    Parameters
    ----------
    name : str
        Its path in the fine-tune's directory.
    size : int or None
        Its bytes; None if it is not in the pack, since it lies beside the base.
    stored : int or None
        Bytes that the pack takes for it, compressed; None as for `size`.
    is_changed : bool
        Whether it is stored as a change of the base's file.
    """

    name: str
    size: int | None = None
    stored: int | None = None
    is_changed: bool = False


@dataclass(frozen=True, slots=True)
class PackCloseness:
    """Comparison of a decoded pack with its fine-tune, over all tensors that are coded.

    Parameters
    ----------
    error : float or None
        Relative error of the delta.
    cosine : float or None
        Cosine of the decoded delta and the true one.
    norm_ratio : float or None
        Norm of the decoded delta, divided by that of the true one.
    """

    error: float | None
    cosine: float | None
    norm_ratio: float | None


@dataclass(frozen=True, slots=True)
class PackStatistics:
    """Statistics of one pack.

    Parameters
    ----------
    name : str
        Name of its file.
    id : str
        Pack id, in hexadecimal.
    task : str or None
        The task, from the summary.
    encoder : str or None
        The encoder and its settings, from the summary.
    base : BaseRef or None
        The base, from the summary.
    size : int
        Bytes of the file.
    parameters : int
        Number of elements of the fine-tune's tensors.
    fine_tune_size : int
        Bytes of the fine-tune's tensors.
    kinds : tuple of KindStatistics
        Bytes by kind; they add up to `size`.
    files : tuple of FileStatistics
        The auxiliary files.
    absent : tuple of str
        Names of tensors that only the base has.
    tensors : tuple of TensorStatistics
        All tensors, names ascending.
    closeness : PackCloseness, optional
        Comparison with the fine-tune, if that was given.
    claim : Claim, optional
        What the author says about the pack's quality, from the summary.
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
    claim: Claim | None = None

    @property
    def title(self) -> str:
        """The task, or else the name of the file."""
        return self.task or self.name

    @property
    def bits(self) -> float:
        """Bits of the file per parameter."""
        return 8 * self.size / max(1, self.parameters)


@dataclass(frozen=True, slots=True)
class DirectoryStatistics:
    """Statistics of a directory of packs.

    Parameters
    ----------
    name : str
        Name of the directory.
    packs : dict
        Statistics of each pack, by task.
    """

    name: str
    packs: dict[str, PackStatistics]


def as_json(statistics: PackStatistics | DirectoryStatistics) -> dict[str, Any]:
    """Return statistics as a JSON document."""
    if isinstance(statistics, DirectoryStatistics):
        return {"name": statistics.name, "packs": {task: as_json(pack) for task, pack in statistics.packs.items()}}
    return asdict(statistics) | {"claim": claim_facts(statistics.claim) if statistics.claim else None}


def finite(value: float | None) -> float | None:
    """Return a value if it is finite, else None; a hostile pack may decode to NaN or infinity."""
    return value if value is not None and isfinite(value) else None


def relative(error_square: float | None, delta_square: float | None) -> float | None:
    """Return the norm of an error divided by that of the delta; None if either is missing, or the delta is zero."""
    return finite(sqrt(error_square / delta_square)) if error_square is not None and delta_square else None
