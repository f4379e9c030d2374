"""Blocks + base rows -> one tensor in plain numpy, for programs without torch (spec section 8, steps 3 to 6).

`dtscodec.decoding.reconstruct` does the same in torch, on any device.
"""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtscodec.files.range_reader import Bytes
from dtscodec.format.blocks import BaseRows, Block, CodedContent, Content, LowRank
from dtscodec.format.blocks.coded import Floats
from dtscodec.format.dtypes import CODED_DTYPES, DType, bits_of
from dtscodec.format.index import TensorEntry
from dtscodec.format.residual.prediction import ReadBytes
from dtscodec.format.streams import floats_from_bytes, round_numbers
from dtscodec.quantize.dither import round_dithered

Array: TypeAlias = NDArray[np.generic]

NUMPY_DTYPES: dict[DType, str] = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
}  # fmt: skip
"""numpy's names of the dtypes that it has."""


def numpy_tensor(entry: TensorEntry, contents: Iterable[tuple[int, Block, Content]], read_base: ReadBytes) -> Array:
    """Return one tensor, reconstructed from its blocks.

    Parameters
    ----------
    entry : TensorEntry
        The tensor, not a tie. The base has the rows that its blocks use (`TensorEntry.check_base`).
    contents : iterable of (first row, Block, Content)
        See `dtscodec.format.reader.PackReader.contents`.
    read_base : callable
        Returns the spec and the checked bytes of a base tensor by name.

    Returns
    -------
    array
        Of the tensor's shape and dtype; BF16 is returned as float32.

    Raises
    ------
    ValueError
        numpy has no such dtype.
    """
    spec = entry.spec
    if spec.dtype not in CODED_DTYPES:
        return _exact(entry, contents, read_base)
    wide = np.dtype(np.float64 if spec.dtype == "F64" else np.float32)
    weights = np.zeros(spec.matrix(entry.split), wide)
    with np.errstate(over="ignore", invalid="ignore"):  # A pack may hold numbers that overflow.
        for row, block, content in contents:
            part = weights[row : row + block.height]
            if isinstance(content, np.ndarray):
                part[:] = floats_from_bytes(content, spec.dtype).reshape(part.shape)
                continue
            # The base's rows, converted; then coded elements, from base and delta rounded once.
            if (base := block.base) is not None:
                part[:] = _rounded(_base_rows(entry, base, block.height, read_base).astype(wide), spec.dtype)
            if content is not None:
                _add(part, entry, content, read_base)
        # BF16 stays float32, since numpy has no bfloat16.
        return weights.reshape(spec.shape).astype("<f2") if spec.dtype == "F16" else weights.reshape(spec.shape)


def numpy_form(data: Bytes, entry: TensorEntry) -> Array:
    """Return the bytes of a tensor as an array, as `numpy_tensor` does.

    Parameters
    ----------
    data : uint8 [nbytes]
        The bytes.
    entry : TensorEntry
        The tensor.

    Raises
    ------
    ValueError
        numpy has no such dtype.
    """
    spec = entry.spec
    if spec.dtype == "BF16":
        return floats_from_bytes(data, spec.dtype).reshape(spec.shape)
    _check_dtype(entry)
    return data.view(NUMPY_DTYPES[spec.dtype]).reshape(spec.shape)


def _check_dtype(entry: TensorEntry) -> None:
    if entry.spec.dtype not in NUMPY_DTYPES:
        raise ValueError(f"{entry.name}: expected a dtype that numpy has, got {entry.spec.dtype}; use dtscodec.decode")


def _exact(entry: TensorEntry, contents: Iterable[tuple[int, Block, Content]], read_base: ReadBytes) -> Array:
    """Reconstruct a tensor of a dtype that is never coded, byte by byte."""
    spec = entry.spec
    _check_dtype(entry)
    # A block without base and content is zeros (section 6.1).
    data = np.zeros(spec.nbytes, np.uint8)
    width = entry.columns * bits_of(spec.dtype) // 8
    for row, block, content in contents:
        part = data[row * width : (row + block.height) * width]
        if isinstance(content, np.ndarray):
            part[:] = content
        elif (base := block.base) is not None:
            part[:] = read_base(base.name)[1][base.first * width : (base.first + block.height) * width]
    return numpy_form(data, entry)


def _add(part: Floats, entry: TensorEntry, content: CodedContent, read_base: ReadBytes) -> None:
    """Write W = B + delta where a block is coded; B is not rounded before the addition."""
    block, coded = content.block, content.delta(np.float64 if entry.spec.dtype == "F64" else np.float32)
    where = coded.where(*part.shape)
    delta = coded.dense()
    if block.base is not None:
        delta = _base_rows(entry, block.base, block.height, read_base).astype(part.dtype)[where] + delta
    if isinstance(block, LowRank) and block.is_dithered:
        rows, columns = where
        part[where] = round_dithered(delta, rows.ravel(), columns.ravel(), part.shape[1])
    else:
        part[where] = _rounded(delta, entry.spec.dtype)


def _base_rows(entry: TensorEntry, base: BaseRows, height: int, read_base: ReadBytes) -> Floats:
    spec, data = read_base(base.name)
    width = entry.columns * bits_of(spec.dtype) // 8
    rows = data[base.first * width : (base.first + height) * width]
    return floats_from_bytes(rows, spec.dtype).reshape(height, entry.columns)


def _rounded(values: Floats, dtype: DType) -> Floats:
    """Return numbers rounded to nearest even of a dtype, in their own dtype."""
    if dtype == "F16":
        return values.astype(np.float16).astype(values.dtype)
    if dtype == "BF16":
        rounded = round_numbers(np.ascontiguousarray(values, np.float32).ravel(), "BF16").reshape(values.shape)
        # Rounding by bits can turn a NaN into infinity.
        return np.where(np.isnan(values), np.float32(np.nan), rounded)
    return values
