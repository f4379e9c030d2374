"""The part of a delta that is to be coded: rows and columns that moved."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dtscodec.activations.metric import Metric
from dtscodec.encoding.segments.coded_subset import CodedSubset, largest
from dtscodec.format.blocks import BaseRows, Mask
from dtscodec.linalg.chunks import cache_sized, squared_norm
from dtscodec.linalg.rounding_noise import Noise


@dataclass(frozen=True, slots=True)
class Moved(CodedSubset):
    """The part of a delta that is coded, and where it lies.

    Parameters
    ----------
    values : float32 [coded rows, coded columns]
    rows, cols : bool mask or None
        Rows and columns that are coded; None for all of them. The others are left out: four levels have no zero, and
        the noise of an SVD would give them one.
    height, columns : int
        Size of the delta.
    base : BaseRows or None
        The rows of the base that it was taken from; None if it is a new tensor, a delta from zero.
    noise : Noise or None
        What in the values is rounding of the fine-tune.
    metric : Metric or None
        How the inputs of its layer see it, where that is known.
    """

    values: Tensor
    rows: Mask | None
    cols: Mask | None
    height: int
    columns: int
    base: BaseRows | None
    noise: Noise | None = None
    metric: Metric | None = None

    @classmethod
    def of(cls, delta: Tensor, base: BaseRows | None, noise: Noise | None = None) -> "Moved | None":
        """Find what moved in a delta, float32 [m, n]: rows and columns with an element that is not 0.

        None if nothing did.
        """
        rows, cols = _moved(delta, 1), _moved(delta, 0)
        if rows is not None and not rows.any():
            return None
        return cls(delta, None, None, delta.shape[0], delta.shape[1], base, noise)._cut(rows, cols)

    def seen_by(self, metric: Metric) -> "Moved":
        """The same with a metric of the whole delta.

        Raises
        ------
        EncodeError
            It is that of inputs of another number.
        """
        metric.check(self.height, self.columns)
        masks = zip((self.rows, self.cols), (self.height, self.columns), strict=True)
        return replace(self, metric=metric.subset(*(_mask(mask, count) for mask, count in masks)))

    def _cut(self, rows: Mask | None, cols: Mask | None) -> "Moved":
        keep_rows, keep_cols = map(_mask, (rows, cols), self.values.shape)
        values = self.values if rows is None else self.values[keep_rows]
        values = values if cols is None else values[:, keep_cols]
        noise = self.noise.subset(keep_rows, keep_cols) if self.noise else None
        metric = self.metric.subset(keep_rows, keep_cols) if self.metric else None
        return replace(self, values=values, rows=rows, cols=cols, noise=noise, metric=metric)

    def largest_rows(self, count: int) -> "Moved":
        """Only so many of the coded rows: those that moved most, the first ones on ties."""
        if count >= len(self.values):
            return self
        within = largest(self.row_energies(), count)
        smaller = replace(self, rows=None, cols=None)._cut(within, None)
        return replace(smaller, rows=self.rows_among(within), cols=self.cols)

    def row_energies(self) -> Tensor:
        """Squared norm of each coded row: float64."""
        norms = torch.empty(len(self.values), dtype=torch.float64)
        for part in cache_sized(*self.values.shape):
            norms[part] = torch.linalg.vector_norm(self.values[part], dim=1, dtype=torch.float64)
        return norms.square()

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        least, most = self.values.aminmax()
        return max(-float(least), float(most))

    @property
    def noise_square(self) -> float:
        """Expected squared norm of the rounding noise in it."""
        return self.noise.total if self.noise else 0.0

    @property
    def signal_square(self) -> float:
        """Squared norm of the values, without rounding noise."""
        return max(0.0, squared_norm(self.values) - self.noise_square)


def _mask(mask: Mask | None, count: int) -> Tensor:
    """A mask as torch has it: bool [count], all of them set if it is None."""
    return torch.ones(count, dtype=torch.bool) if mask is None else torch.from_numpy(mask)


def _moved(delta: Tensor, across: int) -> Mask | None:
    """Which rows (across = 1) or columns (across = 0) hold an element that is not 0; None for all of them."""
    mask: Mask = (delta != 0).any(dim=across).numpy()
    return None if mask.all() else mask
