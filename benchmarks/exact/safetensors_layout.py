"""Safetensors files by bytes: where tensors lie, for schemes that code the bytes of a file."""

import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
"""Bytes of an element by dtype; 1 for all others."""


@dataclass(frozen=True, slots=True)
class Span:
    """A tensor in the body of a file.

    Parameters
    ----------
    name, dtype : str
        Name and dtype, as in the header.
    shape : tuple of int
        Its shape.
    start, stop : int
        Bytes of the body.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def width(self) -> int:
        """Bytes of an element."""
        return WIDTHS.get(self.dtype, 1)


def header_of(path: Path) -> bytes:
    """Return the header of a file, with the length that stands before it."""
    with path.open("rb") as file:
        length = file.read(8)
        return length + file.read(int.from_bytes(length, "little"))


def spans(header: bytes) -> list[Span]:
    """Return the tensors of a header in the order of their bytes."""
    entries: dict[str, Any] = json.loads(header[8:])
    entries.pop("__metadata__", None)
    found = [
        Span(name, entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"]) for name, entry in entries.items()
    ]
    return sorted(found, key=lambda span: (span.start, span.stop))


def map_body(path: Path) -> NDArray[np.uint8]:
    """Return the bytes after the header, mapped: uint8 [bytes]."""
    start = len(header_of(path))
    if path.stat().st_size == start:
        return np.empty(0, np.uint8)
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)[start:]


def lay_out(base: Path, fine: Path, out: Path) -> Path:
    """Write the base's tensors by the names and at the places of the fine-tune's, and return the path.

    A tensor is found by its name, or by its name after the first dot: a classifier's encoder has a prefix.

    Parameters
    ----------
    base, fine : Path
        Safetensors files.
    out : Path
        A new file, as long as the fine-tune's. Tensors that the base lacks are zeros.
    """
    header = header_of(fine)
    with out.open("wb") as file:
        file.write(header)
        for piece in _pieces(base, spans(header)):
            file.write(piece.data)
    return out


def _pieces(base: Path, wanted: list[Span]) -> Iterator[NDArray[np.uint8]]:
    body, sources = map_body(base), {span.name: span for span in spans(header_of(base))}
    for span in wanted:
        source = sources.get(span.name) or sources.get(span.name.partition(".")[2])
        if source and (source.dtype, source.shape) == (span.dtype, span.shape):
            yield body[source.start : source.stop]
        else:
            yield np.zeros(span.stop - span.start, np.uint8)
