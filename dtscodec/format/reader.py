"""Lazy reading of a pack: header and index first, streams on demand, each digest block verified before use."""

from collections.abc import Iterator
from functools import cached_property
from typing import IO

import numpy as np
from numpy.typing import NDArray

from dtscodec.errors import FormatError
from dtscodec.files.range_reader import Bytes, RangeReader
from dtscodec.files.spool import Spool
from dtscodec.format.arena_reader import ArenaReader
from dtscodec.format.blocks import Block, Content, split_streams
from dtscodec.format.index import CarriedFile, ChangedFile, Index, TensorEntry
from dtscodec.format.index_json import parse_index
from dtscodec.format.layout import BlockSpans, Layout, lay_out
from dtscodec.format.residual.layer import ResidualLayer
from dtscodec.format.residual.layer_file import write_front, write_layered
from dtscodec.format.residual.prediction import Prediction, ReadBytes
from dtscodec.format.stored_files import check_change, decompress_file
from dtscodec.format.streams import NO_NUMBERS, NUMBER_DTYPES, Streams, numbers_from_bytes
from dtscodec.format.summary import Summary

MAX_INDEX_BYTES = 2**26
"""Largest index, in bytes of JSON."""
MAX_BITMAP_BYTES = 2**27
"""Most bytes of all bitmaps."""


class PackReader:
    """Reader of a pack; the inverse of `dtscodec.format.writer.PackWriter`.

    Header, pack id and index are read and checked on construction, the rest on demand.

    Parameters
    ----------
    source : RangeReader
        The pack. Closed by `close`.
    where : str
        Name of the source, for messages.

    Attributes
    ----------
    size : int
        Length of the file in bytes.
    id : str
        The pack id (spec section 3.4), 64 hex digits.
    summary : Summary
        The metadata entry.
    index : Index
        Tensors, their blocks, and auxiliary files.

    Raises
    ------
    FormatError
        Any rule of the spec's sections 3 and 4 that the file breaks.
    """

    def __init__(self, source: RangeReader, where: str) -> None:
        self._where, self._source = where, source
        self.size: int = source.size
        self._arenas = ArenaReader(source, where)
        self.id: str = self._arenas.id.hex()
        self.summary: Summary = self._arenas.header.summary
        self.index: Index = self._read_index()
        self._layout = self._lay_out()
        self._entries = {entry.name: entry for entry in self.index.tensors}
        self._ends = self._check_lengths()
        # At once only for local files: a remote pack would need a request for each arena (spec section 8, step 2).
        if not source.is_remote:
            self.check_padding()

    def close(self) -> None:
        """Close the source."""
        self._arenas.close()

    def entry(self, name: str) -> TensorEntry:
        """Return the tensor of that name; KeyError if there is none."""
        return self._entries[name]

    def _read_index(self) -> Index:
        index = parse_index(self._arenas.read_frame("index", MAX_INDEX_BYTES), f"{self._where}: index")
        if len(index.tensors) != self.summary.tensors:
            detail = f"expected {self.summary.tensors} tensors as the summary says, got {len(index.tensors)}"
            raise FormatError("summary", self._where, detail, "3.3")
        return index

    def _lay_out(self) -> Layout:
        try:
            return lay_out(self.index)
        except ValueError as error:
            raise FormatError("index", f"{self._where}: index", str(error), "5.4") from error

    def _check_lengths(self) -> dict[str, int]:
        """Check lengths (rules C7 and H1); return the content length of arenas that may have padding."""
        layout, arenas = self._layout, self._arenas
        # Arenas with padding: the content's length follows from the index, the padding from the arena that comes next.
        lengths = {"numbers": layout.numbers * self.number_bytes, "codes": layout.codes, "raw": layout.raw}
        for name, length in lengths.items():
            arenas.check_length(name, length)
        # Bitmaps are compressed: their length is checked when they are read.
        if bool(layout.rows) != ("rows" in arenas):
            arenas.refuse_totals("rows", layout.rows, arenas.arena("rows").end - arenas.arena("rows").begin)
        # One leaf for each base tensor that is used, and a base in the summary if there is any.
        names = self.index.base_names()
        shape = arenas.arena("base").shape
        if shape[0] != len(names) or bool(names) != (self.summary.base is not None):
            arenas.refuse_totals("base", len(names), shape[0])
        return lengths

    def check_padding(self) -> None:
        """Check that only zeros follow the content of arenas (rule C7).

        This happens on construction, except for remote packs, of which it would download the end of each arena.

        Raises
        ------
        FormatError
            Padding is not zero.
        """
        for name, length in self._ends.items():
            self._arenas.check_zeros(name, length)

    @property
    def numbers_dtype(self) -> str:
        """Dtype in which numbers are stored: F32 or BF16."""
        return self._arenas.arena("numbers").dtype if "numbers" in self._arenas else "F32"

    @property
    def number_bytes(self) -> int:
        """Bytes per number: 4 or 2."""
        return NUMBER_DTYPES[self.numbers_dtype]

    @cached_property
    def _bitmaps(self) -> bytes:
        if not self._layout.rows:
            return b""
        content = self._arenas.read_frame("rows", MAX_BITMAP_BYTES)
        if len(content) != self._layout.rows:
            self._arenas.refuse_totals("rows", self._layout.rows, len(content))
        return content

    @cached_property
    def _numbers(self) -> NDArray[np.float32]:
        """All numbers of the pack, finite (rule N1)."""
        numbers = numbers_from_bytes(self._arenas.read("numbers"), self._arenas.arena("numbers").dtype)
        if not np.isfinite(numbers).all():
            raise FormatError("numbers", f"{self._where}: numbers", "expected finite numbers", "5.2")
        return numbers

    @cached_property
    def leaves(self) -> dict[str, bytes]:
        """The first bytes of the leaf of each base tensor that is used (spec section 7)."""
        data = self._arenas.read("base")
        width = self._arenas.arena("base").shape[-1]
        return {name: data[i * width : (i + 1) * width] for i, name in enumerate(self.index.base_names())}

    def contents(self, name: str) -> Iterator[tuple[int, Block, Content]]:
        """Yield the blocks of a tensor: first row, block, and the content of its streams, checked.

        Raises
        ------
        KeyError
            No tensor of that name.
        FormatError
            Rules D3, W1, W2, N1, N2, E1, E2 and P2.
        """
        entry = self._entries[name]
        for (row, block), place in zip(entry.placed(), self._layout.blocks[name], strict=True):
            yield row, block, self._split(entry, block, self._streams(place))

    def blocks(self, name: str) -> Iterator[tuple[int, Block, Streams]]:
        """Yield the blocks of a tensor: first row, block, and its streams. Those of coded blocks are checked.

        Raises
        ------
        KeyError
            No tensor of that name.
        FormatError
            Rules D3, W1, W2, N1, N2, E1 and E2.
        """
        entry = self._entries[name]
        for (row, block), place in zip(entry.placed(), self._layout.blocks[name], strict=True):
            streams = self._streams(place)
            if block.is_coded:
                self._split(entry, block, streams)
            yield row, block, streams

    def _split(self, entry: TensorEntry, block: Block, streams: Streams) -> Content:
        try:
            return split_streams(block, entry.columns, streams, entry.spec.dtype)
        except FormatError as error:
            raise error.within(f"{self._where}: {entry.name}") from error

    def _streams(self, place: BlockSpans) -> Streams:
        return Streams(
            bitmaps=self._bitmaps[slice(*place.rows)] if place.rows[0] != place.rows[1] else b"",
            numbers=self._numbers[slice(*place.numbers)] if place.numbers[0] != place.numbers[1] else NO_NUMBERS,
            bands=tuple(self._arenas.read("codes", span) for span in place.bands),
            raw=self._arenas.read("raw", place.raw),
        )

    @cached_property
    def layer(self) -> ResidualLayer | None:
        """The residual layer, read on first use; None for a pack without one.

        Raises
        ------
        FormatError
            Rules D3, D4, I1 and X1 to X3.
        """
        return ResidualLayer(self._arenas, self.index, self._where) if self._arenas.header.has_layer else None

    @property
    def front_bytes(self) -> int:
        """Length of the front of the file, in bytes: of everything but the residual layer."""
        return self._arenas.header.front_end

    def keep_front(self) -> None:
        """Read all of the front at once, where that saves requests to remote storage."""
        self._source.keep(self.front_bytes)

    def exact(self, name: str, read_base: ReadBytes) -> Bytes:
        """Return a tensor bit for bit, of a pack that has a residual layer: uint8 [nbytes].

        Parameters
        ----------
        name : str
            The tensor.
        read_base : callable
            Returns spec and checked bytes of a base tensor. The base has the rows that the blocks use
            (`TensorEntry.check_base`).

        Raises
        ------
        KeyError
            No tensor of that name.
        ValueError
            The pack has no residual layer.
        FormatError
            The pack is damaged there.
        """
        if self.layer is None:
            raise ValueError(f"{self._where}: expected a residual layer, got none")
        entry = self._entries[name]
        if entry.tied_to is not None:
            return self.exact(entry.tied_to, read_base)
        with_delta = self.layer.tensor(name).with_delta
        return self.layer.decode(entry, Prediction(entry, self.contents(name), read_base, with_delta))

    def write_layered(self, file: IO[bytes], content: str, index: bytes, residual: Spool) -> bytes:
        """Write this pack with a residual layer; see `dtscodec.format.residual.layer_file.write_layered`."""
        return write_layered(self._arenas, file, content, index, residual)

    def write_front(self, file: IO[bytes]) -> bytes:
        """Write this pack without its residual layer, and return its id; the inverse of `write_layered`."""
        return write_front(self._arenas, file)

    def block_spans(self, name: str) -> list[BlockSpans]:
        """Return the spans of a tensor's blocks in the arenas."""
        return self._layout.blocks[name]

    def arena_bytes(self) -> dict[str, int]:
        """Return the length of the header and of each arena, in bytes."""
        header = self._arenas.header
        return {"header": len(header.data)} | {name: arena.end - arena.begin for name, arena in header.arenas.items()}

    def file(self, entry: CarriedFile) -> bytes:
        """Return the content of a carried file.

        Raises
        ------
        FormatError
            Rules D3 and F2.
        """
        stored = self._arenas.read("raw", self._layout.files[entry.name])
        return decompress_file(stored, entry.size, f"{self._where}: {entry.name}")

    def change(self, entry: ChangedFile) -> bytes:
        """Return the frame of a changed file, for `decompress_change`; checked as far as it can be without the base.

        Raises
        ------
        FormatError
            Rules D3 and F2.
        """
        frame = self._arenas.read("raw", self._layout.files[entry.name])
        check_change(frame, entry.size, f"{self._where}: {entry.name}")
        return frame

    def check_all(self) -> Iterator[int]:
        """Check every byte: digest blocks, padding, streams and files; yield the bytes of each digest block.

        Raises
        ------
        FormatError
            Any rule that the pack breaks.
        """
        yield from self._arenas.check_digests()
        self.check_padding()
        # Reading blocks and files checks the rules on their contents (W, N, E, P and F).
        for entry in self.index.tensors:
            for _ in self.contents(entry.name):
                pass
        for file in self.index.files:
            if isinstance(file, CarriedFile):
                self.file(file)
            elif isinstance(file, ChangedFile):
                self.change(file)
        if self.layer is not None:
            self.layer.weight_files()
