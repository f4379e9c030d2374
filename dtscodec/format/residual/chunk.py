"""A chunk of rows <-> its bytes: which elements differ from the prediction, and by how much (spec section 15.5).

Where most elements differ, distances are coded in contexts that follow from the prediction and from scales of rows and
columns. Where few do, their positions are stored, and contexts follow from the prediction alone.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtscodec.format.primitives.zstd_frames import compress_parts
from dtscodec.format.residual.buckets import join_buckets, most_bytes, split_buckets
from dtscodec.format.residual.content import Content
from dtscodec.format.residual.contexts import Scales, common_scale, measure_scales
from dtscodec.format.residual.integers import ElementKind, Integers, exponents, from_distances, to_distances
from dtscodec.format.residual.prediction import PLAIN, Factors

Predict: TypeAlias = Callable[[Factors], Integers]
"""Returns the prediction of a chunk's elements with these factors: signed integers [rows, columns]."""

CHUNK_ELEMENTS: Final = 2**20
"""Rows of about so many elements are a chunk."""
_GAP: Final = np.dtype("<u4")
_FEW: Final = 1 / 32
"""Largest share of elements that positions are stored for; see `benchmarks.exact`."""
# Flags of a chunk: scales of rows, scales of columns, positions; factors of rows, factor of the delta.
_ROWS, _COLUMNS, _POSITIONS, _ROW_FACTORS, _DELTA_FACTOR = 1, 2, 4, 8, 16


def chunk_rows(columns: int) -> int:
    """Return the number of rows of a chunk, at least 1; the last chunk of a tensor may have fewer."""
    return max(1, CHUNK_ELEMENTS // max(1, columns))


def encode_chunk(elements: Integers, prediction: Integers, kind: ElementKind, factors: Factors = PLAIN) -> bytes:
    """Return the bytes that turn a prediction into the elements; the inverse of `decode_chunk`.

    Parameters
    ----------
    elements, prediction : signed integers [rows, columns]
        The bits of both; at most 2**32 elements.
    kind : ElementKind
        What the bits are.
    factors : Factors
        Those that the prediction was made with.

    Returns
    -------
    bytes
        Empty if the prediction without factors is right.
    """
    positions = np.flatnonzero(elements != prediction)
    if not len(positions) and factors.is_plain:
        return b""
    if len(positions) <= _FEW * elements.size:
        flags, offset, parts = _few_parts(elements, prediction, kind, positions)
    else:
        flags, offset, parts = _parts(elements, prediction, kind)
    return compress_parts([_head(flags, offset, factors), *parts])


def _head(flags: int, offset: int, factors: Factors) -> bytes:
    """Return the first part of a chunk: flags, offset, factors."""
    flags |= _ROW_FACTORS * (factors.rows is not None) | _DELTA_FACTOR * (factors.delta is not None)
    head = bytes([flags]) + offset.to_bytes(2, "little", signed=True)
    if factors.delta is not None:
        head += np.array(factors.delta, "<f4").tobytes()
    return head if factors.rows is None else head + factors.rows.astype("<f4").tobytes()


_Parts: TypeAlias = tuple[int, int, list[bytes]]
"""Flags, offset of the contexts, and the parts of a chunk that follow its head."""


def _parts(elements: Integers, prediction: Integers, kind: ElementKind) -> _Parts:
    """Return the parts of a chunk in which many elements differ."""
    distances, exponent = to_distances(elements, prediction, kind), exponents(prediction, kind)
    scales = measure_scales(distances, exponent)
    rows, columns = scales.coded()
    contexts = scales.contexts(exponent)[rows][:, columns]
    buckets = split_buckets(distances[rows][:, columns].ravel(), contexts.ravel())
    flags = _ROWS * (scales.rows is not None) | _COLUMNS * (scales.columns is not None)
    sides = [side.tobytes() for side in (scales.rows, scales.columns) if side is not None]
    return flags, scales.offset, [*sides, *buckets]


def _few_parts(elements: Integers, prediction: Integers, kind: ElementKind, positions: NDArray[np.intp]) -> _Parts:
    """Return the parts of a chunk in which few elements differ, those at some positions."""
    count = len(positions).to_bytes(4, "little")
    if not len(positions):
        return _POSITIONS, 0, [count]
    gaps = np.diff(positions, prepend=-1) - 1
    predicted = prediction.ravel()[positions]
    # A distance here is never 0.
    distances = to_distances(elements.ravel()[positions], predicted, kind) - kind.unsigned.type(1)
    exponent = exponents(predicted, kind)
    scales = common_scale(distances, exponent)
    gap_parts = split_buckets(gaps.astype(_GAP), np.zeros(len(gaps), np.uint8))
    distance_parts = split_buckets(distances, scales.contexts(exponent[:, None]).ravel())
    return _POSITIONS, scales.offset, [count, *gap_parts, *distance_parts]


def decode_chunk(data: bytes, predict: Predict, shape: tuple[int, int], kind: ElementKind) -> Integers:
    """Return the elements of a chunk; the inverse of `encode_chunk`.

    Parameters
    ----------
    data : bytes
        The chunk.
    predict : callable
        Returns the prediction for the factors of the chunk, the same to the bit as for encoding.
    shape : (int, int)
        Rows and columns of the chunk.
    kind : ElementKind
        What the bits are.

    Raises
    ------
    ValueError
        The chunk is damaged.
    """
    if not data:
        return predict(PLAIN)
    rows, columns = shape
    # Flags, offset, factors, scales or a count; then distances and perhaps gaps.
    size = rows * columns
    head = 11 + 5 * rows + columns
    content = Content(data, head + most_bytes(size, kind.size) + most_bytes(size, _GAP.itemsize))
    flags, offset = content.take_integer(1), content.take_integer(2, signed=True)
    prediction = predict(_take_factors(content, flags, rows))
    flags &= ~(_ROW_FACTORS | _DELTA_FACTOR)
    if flags == _POSITIONS:
        result = _decode_few(content, Scales(offset), prediction, kind)
    elif flags & ~(_ROWS | _COLUMNS) == 0:
        result = _decode(content, flags, offset, prediction, kind)
    else:
        raise ValueError(f"expected flags of rows and columns, or of positions, got {flags}")
    content.end()
    return result


def _take_factors(content: Content, flags: int, rows: int) -> Factors:
    """Take the factors of a chunk; the inverse of the end of `_head`."""
    delta = content.take(4).view("<f4")[0] if flags & _DELTA_FACTOR else None
    of_rows = content.take(4 * rows).view("<f4") if flags & _ROW_FACTORS else None
    if not (np.isfinite(delta or 0) and (of_rows is None or np.isfinite(of_rows).all())):
        raise ValueError("expected finite factors")
    return Factors(of_rows, delta)


def _decode(content: Content, flags: int, offset: int, prediction: Integers, kind: ElementKind) -> Integers:
    """Return the elements of a chunk from the rest of its content; the inverse of `_parts`."""
    sides = [
        content.take(n) if flags & flag else None for n, flag in zip(prediction.shape, (_ROWS, _COLUMNS), strict=True)
    ]
    scales = Scales(offset, *sides)
    rows, columns = scales.coded()
    contexts = scales.contexts(exponents(prediction, kind))[rows][:, columns]
    if not contexts.size:
        raise ValueError("expected a chunk with distances, got none")
    distances = join_buckets(content, contexts.ravel(), kind.unsigned).reshape(contexts.shape)
    if distances.shape == prediction.shape:
        return from_distances(distances, prediction, kind)
    result: Integers = prediction.copy()
    coded = np.ix_(*(np.arange(n)[part] for n, part in zip(prediction.shape, (rows, columns), strict=True)))
    result[coded] = from_distances(distances, prediction[coded], kind)
    return result


def _decode_few(content: Content, scales: Scales, prediction: Integers, kind: ElementKind) -> Integers:
    """Return the elements of a chunk from the rest of its content; the inverse of `_few_parts`."""
    count = content.take_integer(4)
    if count > prediction.size:
        raise ValueError(f"expected positions of at most {prediction.size} elements, got {count}")
    if not count:
        return prediction
    gaps = join_buckets(content, np.zeros(count, np.uint8), _GAP)
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if positions[-1] >= prediction.size:
        raise ValueError(f"expected positions below {prediction.size}, got {positions[-1]}")
    result: Integers = prediction.copy()
    flat = result.reshape(-1)
    predicted = flat[positions]
    contexts = scales.contexts(exponents(predicted, kind)[:, None]).ravel()
    distances = join_buckets(content, contexts, kind.unsigned) + kind.unsigned.type(1)
    if not distances.all():
        raise ValueError(f"expected distances of {8 * kind.size} bits, got more")
    flat[positions] = from_distances(distances, predicted, kind)
    return result
