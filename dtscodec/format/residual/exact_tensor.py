"""One tensor <-> the chunks that its prediction lacks (spec section 15.5)."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dtscodec.errors import DtsError, FormatError
from dtscodec.format.content_digest import leaf
from dtscodec.format.index import TensorEntry
from dtscodec.format.residual.chunk import chunk_rows, decode_chunk, encode_chunk
from dtscodec.format.residual.integers import Integers
from dtscodec.format.residual.prediction import PLAIN, Factors, Prediction


def as_elements(data: NDArray[np.uint8], prediction: Prediction) -> Integers:
    """Return the bytes of a tensor as elements: signed integers [rows, columns]."""
    return np.ascontiguousarray(data).view(prediction.kind.signed).reshape(prediction.shape)


def chunk_ranges(prediction: Prediction) -> Iterator[tuple[int, int]]:
    """Yield first and last row of each chunk of a tensor."""
    rows, columns = prediction.shape
    step = chunk_rows(columns)
    for first in range(0, rows if columns else 0, step):
        yield first, min(first + step, rows)


def encode_chunks(
    data: NDArray[np.uint8], prediction: Prediction, factors: Sequence[Factors] | None = None
) -> Iterator[bytes]:
    """Yield the chunks of a tensor; the inverse of `decode_chunks`.

    Parameters
    ----------
    data : uint8 [nbytes]
        The tensor.
    prediction : Prediction
        Its prediction.
    factors : sequence of Factors, optional
        Those of each chunk.
    """
    elements = as_elements(data, prediction)
    for number, (first, last) in enumerate(chunk_ranges(prediction)):
        own = PLAIN if factors is None else factors[number]
        yield encode_chunk(elements[first:last], prediction.rows(first, last, own), prediction.kind, own)


def decode_chunks(chunks: Iterator[bytes], prediction: Prediction) -> NDArray[np.uint8]:
    """Return the bytes of a tensor: uint8 [nbytes]; the inverse of `encode_chunks`.

    Parameters
    ----------
    chunks : iterator of bytes
        The chunks in order; none if all predictions are right.
    prediction : Prediction
        The prediction of the tensor.

    Raises
    ------
    ValueError
        A chunk is damaged.
    """
    result = np.empty(prediction.shape, prediction.kind.signed)
    for first, last in chunk_ranges(prediction):

        def predict(factors: Factors, first: int = first, last: int = last) -> Integers:
            return prediction.rows(first, last, factors)

        result[first:last] = decode_chunk(
            next(chunks, b""), predict, (last - first, prediction.shape[1]), prediction.kind
        )
    return result.reshape(-1).view(np.uint8)


def decode_checked(
    chunks: Iterator[bytes], entry: TensorEntry, prediction: Prediction, expected: bytes, where: str
) -> NDArray[np.uint8]:
    """Return the bytes of a tensor, once they are what was encoded: uint8 [nbytes].

    Parameters
    ----------
    chunks, prediction
        As for `decode_chunks`.
    entry : TensorEntry
        The tensor, not a tie.
    expected : bytes
        Its leaf, 32 bytes.
    where : str
        Pack and tensor, for messages.

    Raises
    ------
    FormatError
        Rules X4 and X5; and what reading the chunks raises.
    BaseMismatchError
        A base tensor is another than the pack was made against.
    """
    try:
        data = decode_chunks(chunks, prediction)
    except DtsError:
        # The base is read on the way, and so are digest blocks.
        raise
    except ValueError as error:
        raise FormatError("residual", where, str(error), "15.5") from error
    if (found := leaf(entry.spec, data)) != expected:
        raise FormatError("content", where, f"expected the leaf {expected.hex()}, got {found.hex()}", "15.5")
    return data
