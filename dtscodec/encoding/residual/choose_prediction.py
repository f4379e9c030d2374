"""Choice of the prediction that leaves a tensor the fewest bits: from a sample of its rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import CODED_DTYPES, DType
from dtscodec.format.residual.exact_tensor import as_elements
from dtscodec.format.residual.integers import Integers, to_distances
from dtscodec.format.residual.prediction import Doubles, Factors, Prediction, widen

SAMPLE_ELEMENTS = 2**16
"""Elements of a tensor on which predictions are compared."""
_SAMPLES = 4
_LEAST_GAIN = 0.02
"""Bits an element that a factor must save beyond its own cost."""
_FACTOR_BITS = 32


@dataclass(frozen=True, slots=True, eq=False)
class ChosenPrediction:
    """The prediction of a tensor, and how the factors of its chunks are made.

    Parameters
    ----------
    prediction : Prediction
        The prediction.
    with_delta : bool
        Whether it has the delta of coded blocks.
    delta_factor : float32, optional
        The factor of the delta.
    has_row_factors : bool
        Whether each row has a factor.
    """

    prediction: Prediction
    with_delta: bool
    delta_factor: np.float32 | None = None
    has_row_factors: bool = False

    def factors(self, elements: Integers, first: int, last: int, dtype: DType) -> Factors:
        """Return the factors of a chunk.

        Parameters
        ----------
        elements : signed integers [last - first, columns]
            The fine-tune's.
        first, last : int
            Rows of the chunk.
        dtype : DType
            Dtype of the tensor.
        """
        rows = None
        if self.has_row_factors:
            rows = _row_factors(_values(elements, dtype), *self.prediction.terms(first, last), self.delta_factor)
        return Factors(rows, self.delta_factor)


def choose_prediction(data: Bytes, base_alone: Prediction, with_delta: Prediction, dtype: DType) -> ChosenPrediction:
    """Return the prediction of a tensor that leaves the fewest bits.

    Parameters
    ----------
    data : uint8 [nbytes]
        The fine-tune's tensor.
    base_alone, with_delta : Prediction
        The two predictions of the tensor.
    dtype : DType
        Its dtype.
    """
    plain = ChosenPrediction(base_alone, False)
    samples = list(_sample(data, base_alone))
    if dtype not in CODED_DTYPES or not samples:
        return plain
    choices = [plain, ChosenPrediction(base_alone, False, has_row_factors=True)]
    if with_delta.is_coded:
        factor = _delta_factor(samples, with_delta, dtype)
        choices.append(ChosenPrediction(with_delta, True))
        choices.append(ChosenPrediction(with_delta, True, factor))
        choices.append(ChosenPrediction(with_delta, True, factor, has_row_factors=True))
    costs = [_bits(choice, samples, dtype) for choice in choices]
    # Of about equal ones the simplest.
    return choices[int(np.argmin(np.array(costs) + _LEAST_GAIN * np.arange(len(costs))))]


_Sample = tuple[int, int, Integers]
"""First and last row of a sample, and the fine-tune's elements."""


def _sample(data: Bytes, prediction: Prediction) -> Iterator[_Sample]:
    """Yield some runs of rows, spread over the tensor."""
    rows, columns = prediction.shape
    if not rows * columns:
        return
    elements = as_elements(data, prediction)
    height = max(1, SAMPLE_ELEMENTS // _SAMPLES // columns)
    if rows <= _SAMPLES * height:
        yield 0, rows, elements
        return
    for first in np.linspace(0, rows - height, _SAMPLES).astype(int).tolist():
        yield first, first + height, elements[first : first + height]


def _bits(choice: ChosenPrediction, samples: list[_Sample], dtype: DType) -> float:
    """Return the mean logarithm of the distances in bits, and what row factors cost: an estimate up to a constant."""
    total = count = 0.0
    for first, last, elements in samples:
        factors = choice.factors(elements, first, last, dtype)
        predicted = choice.prediction.rows(first, last, factors)
        distances = to_distances(elements, predicted, choice.prediction.kind).astype(np.float64)
        total += float(np.log2(1.0 + distances).sum()) + _FACTOR_BITS * (last - first) * choice.has_row_factors
        count += elements.size
    return total / count


@np.errstate(all="ignore")  # Differences of numbers that are not finite count as 0.
def _delta_factor(samples: list[_Sample], prediction: Prediction, dtype: DType) -> np.float32 | None:
    """Return the factor of the delta that has the least squared error; None if it is about 1."""
    products = squares = 0.0
    for first, last, elements in samples:
        base, delta = prediction.terms(first, last)
        with np.errstate(all="ignore"):
            change = np.nan_to_num(_values(elements, dtype) - base, nan=0.0, posinf=0.0, neginf=0.0)
            products += float((change * delta).sum())
            squares += float(np.square(delta).sum())
    factor = products / squares if squares else 1.0
    # A pack's delta is scaled up to serve behaviour, by less than two; other factors are those of odd numbers.
    return np.float32(factor) if 0.1 < factor < 10 and abs(factor - 1) >= 0.01 else None


def _row_factors(fine: Doubles, base: Doubles, delta: Doubles, factor: np.float32 | None) -> NDArray[np.float32]:
    """Return what each row of the base grows by with the least squared error: float32 [rows]."""
    with np.errstate(all="ignore"):
        rest = fine - base - (delta if factor is None else delta * factor)
        growth = ((rest * base).sum(axis=1) / np.square(base).sum(axis=1)).astype(np.float32)
    # What float32 cannot hold is no growth.
    result: NDArray[np.float32] = np.where(np.isfinite(growth), growth, np.float32(0))
    return result


def _values(elements: Integers, dtype: DType) -> Doubles:
    return widen(np.ascontiguousarray(elements).reshape(-1).view(np.uint8), dtype).reshape(elements.shape)
