"""Comparison of a decoded pack with its fine-tune, by tensor and in total."""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.stored_tensor import convert_dtype
from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes
from dtscodec.decoding.decode import decode
from dtscodec.decoding.decoded import Decoded
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.files.range_reader import Bytes
from dtscodec.format.blocks import BaseRows
from dtscodec.format.dtypes import CODED_DTYPES
from dtscodec.format.index import TensorEntry
from dtscodec.linalg.chunks import squared_norm
from dtscodec.packs.byte_counts import TensorSize, tensor_sizes
from dtscodec.packs.pack import Pack, PackSource
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.open_file import WHOLE


@dataclass(frozen=True, slots=True)
class Closeness:
    """Squared norms that compare a decoded delta with the true one.

    Parameters
    ----------
    delta_square, decoded_square, error_square : float
        Squared norms of the true delta, of the decoded one, and of their difference.
    inner : float
        Their inner product.
    """

    delta_square: float = 0.0
    decoded_square: float = 0.0
    error_square: float = 0.0
    inner: float = 0.0

    def __add__(self, other: "Closeness") -> "Closeness":
        return Closeness(
            self.delta_square + other.delta_square,
            self.decoded_square + other.decoded_square,
            self.error_square + other.error_square,
            self.inner + other.inner,
        )

    @property
    def relative_error(self) -> float | None:
        """Norm of the difference divided by the norm of the true delta; None if that is zero."""
        return sqrt(self.error_square / self.delta_square) if self.delta_square else None

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between the deltas; None if one is zero."""
        norms = sqrt(self.delta_square) * sqrt(self.decoded_square)
        return self.inner / norms if norms else None

    @property
    def norm_ratio(self) -> float | None:
        """Norm of the decoded delta divided by the norm of the true one; None if that is zero."""
        return sqrt(self.decoded_square / self.delta_square) if self.delta_square else None


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """Comparison of one tensor.

    Parameters
    ----------
    size : TensorSize
        Name, spec and size in the pack.
    exact : bool
        Whether all bytes of the decoded tensor equal those of the fine-tune.
    closeness : Closeness, optional
        Comparison of the deltas; None for tensors that are exact and not coded, and for other dtypes than floats.
    counted : Closeness
        Its part in the total: all blocks except those that are coded without a base.
    """

    size: TensorSize
    exact: bool
    closeness: Closeness | None
    counted: Closeness = Closeness()

    @property
    def bits_per_parameter(self) -> float:
        """Bits of the pack per element of the tensor."""
        return 8 * self.size.size / max(1, self.size.spec.elements)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of a pack with its fine-tune.

    Parameters
    ----------
    tensors : tuple of TensorComparison
        Names ascending.
    total : Closeness
        Over all coded deltas, and tensors that should be exact but differ. Exact tensors, and new ones, which are large
        and not deltas, are excluded: they would make the total look better.
    pack_bytes, fine_bytes, parameters : int
        Size of the pack file; bytes and elements of the fine-tune's tensors.
    """

    tensors: tuple[TensorComparison, ...]
    total: Closeness
    pack_bytes: int
    fine_bytes: int
    parameters: int

    @property
    def bits_per_parameter(self) -> float:
        """Bits of the whole file per element of the fine-tune."""
        return 8 * self.pack_bytes / max(1, self.parameters)


def compare(
    pack: PackSource,
    fine_tune: Source,
    base: "Source | Base | None" = None,
    *,
    progress: ProgressCallback = no_progress,
) -> Comparison:
    """Decode a pack and compare it with its fine-tune.

    The deltas compared are those of stored weights, rounded to their dtype: fine-tune minus base, and decoded minus
    base. (The error that `encode` reports is measured before that last rounding.)

    Parameters
    ----------
    pack : path, bytes or Pack
        The pack.
    fine_tune : path or mapping of tensors
        The fine-tune that it was made from.
    base : path, mapping of tensors, or Base
        The base; see `dtscodec.decode` for the default.
    progress : callable
        Called with the number of bytes of each tensor that has been compared.

    Raises
    ------
    CheckpointError
        The fine-tune does not have the tensors of the pack.
    BaseMismatchError, FormatError
        As for `dtscodec.decode`.
    """
    with decode(pack, base, whole=True) as decoded, open_checkpoint(fine_tune, WHOLE) as fine:
        _check_specs(decoded.pack, fine)
        compared = []
        for size in tensor_sizes(decoded.pack):
            compared.append(_compare_tensor(decoded, fine, size))
            progress(size.spec.nbytes)
        # Before any figure is reported (rule H3).
        decoded.check_base()
        specs = list(fine.specs.values())
        total = sum((item.counted for item in compared), Closeness())
        sizes = decoded.pack.size, sum(spec.nbytes for spec in specs), sum(spec.elements for spec in specs)
        return Comparison(tuple(compared), total, *sizes)


def _check_specs(pack: Pack, fine: Checkpoint) -> None:
    ours = {name: pack.spec(name) for name in pack.keys()}  # noqa: SIM118 - a pack is no mapping
    for name in sorted(ours.keys() | fine.specs.keys()):
        if ours.get(name) != fine.specs.get(name):
            detail = f"expected {ours.get(name, 'no such tensor')}, got {fine.specs.get(name, 'no such tensor')}"
            raise CheckpointError(f"{fine.location}: {name}: {detail}", Remedy("is it this pack's fine-tune?"))


def _compare_tensor(decoded: Decoded, fine: Checkpoint, size: TensorSize) -> TensorComparison:
    ours, theirs = decoded.read(size.name), fine.read(size.name)
    # Bytes, not values: NaN equals itself, and -0.0 differs from 0.0.
    exact = bool((ours == theirs).all())
    entry = decoded.pack.reader.entry(size.name)
    is_coded = any(block.is_coded for block in entry.blocks)
    # Nothing to measure: the tensor is exact and not coded, or its elements are no floats.
    if entry.spec.dtype not in CODED_DTYPES or (exact and not is_coded):
        return TensorComparison(size, exact, None)
    ours_matrix, theirs_matrix = _matrix(ours, entry), _matrix(theirs, entry)
    closeness = counted = Closeness()
    # Block by block: coded ones, and those that should be exact but differ.
    for row, block in entry.placed():
        rows = slice(row, row + block.height)
        if block.is_coded or not torch.equal(ours_matrix[rows], theirs_matrix[rows]):
            start = _base_rows(decoded, entry, block.base, block.height).to(ours_matrix.dtype)
            measured = _compare_deltas(theirs_matrix[rows] - start, ours_matrix[rows] - start)
            closeness += measured
            # The total leaves out blocks that are coded without a base.
            if not block.is_coded or block.base is not None:
                counted += measured
    return TensorComparison(size, exact, closeness, counted)


def _compare_deltas(true: Tensor, decoded: Tensor) -> Closeness:
    """Return the squared norms that compare two deltas, summed in float64."""
    return Closeness(
        squared_norm(true),
        squared_norm(decoded),
        squared_norm(true - decoded),
        float((true * decoded).sum(dtype=torch.float64)),
    )


def _matrix(data: Bytes, entry: TensorEntry) -> Tensor:
    """Return a tensor as the matrix that its blocks divide: float32, or float64 for F64."""
    wide = torch.float64 if entry.spec.dtype == "F64" else torch.float32
    return tensor_from_bytes(data, entry.spec).to(wide).reshape(entry.spec.matrix(entry.split))


def _base_rows(decoded: Decoded, entry: TensorEntry, base: BaseRows | None, height: int) -> Tensor:
    """Return the rows that a block's delta is relative to: the base's in the tensor's dtype; zero without a base."""
    if base is None or decoded.base is None:
        return torch.zeros((), device="cpu")
    whole = tensor_from_bytes(decoded.base.read(base.name), decoded.base.specs[base.name])
    rows = whole.reshape(-1, entry.columns)[base.first : base.first + height]
    return convert_dtype(rows, entry.spec.dtype)
