"""Writing of a pack: streams are collected tensor by tensor, the file is assembled at the end (spec section 3)."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, TypeAlias

from dtscodec.files.spool import Spool
from dtscodec.format.container import DIGEST_BYTES, arena_spec_bytes, pack_header_bytes, plan_arenas
from dtscodec.format.digests import BlockHasher, digest_block_size
from dtscodec.format.index import CarriedFile, FileEntry, Index, NamedFile, TensorEntry
from dtscodec.format.index_json import index_text, parse_index
from dtscodec.format.layout import lay_out
from dtscodec.format.names import utf8
from dtscodec.format.primitives.zstd_frames import INDEX_LEVEL, RAW_LEVEL, compress
from dtscodec.format.streams import NUMBER_DTYPES, Streams, numbers_to_bytes
from dtscodec.format.summary import Summary

LARGE_FILE = 2**20
"""Carried files beyond this many bytes are compressed at a lower level."""

ArenaContent: TypeAlias = "Sequence[bytes | Spool]"


class PackWriter:
    """Collects a pack tensor by tensor. A context manager.

    Parameters
    ----------
    numbers : {"F32", "BF16"}
        How norms, levels and scales are stored.
    folder : Path, optional
        For temporary files of long streams; by default that of the system.

    Examples
    --------
    >>> import io
    >>> from dtscodec.format.blocks import Raw
    >>> from dtscodec.format.dtypes import TensorSpec
    >>> with PackWriter() as writer:
    ...     writer.add(TensorEntry("a", TensorSpec("U8", (3,)), (Raw(3),)), [Streams(raw=b"abc")])
    ...     file = io.BytesIO()
    ...     pack_id = writer.write(file, Summary(tensors=1), leaves={})
    >>> len(file.getvalue()) % 32
    3
    """

    def __init__(self, numbers: str = "F32", folder: Path | None = None) -> None:
        self._numbers_dtype = numbers
        self._folder = folder or Path(tempfile.gettempdir())
        self._stack = ExitStack()
        self._entries: list[TensorEntry] = []
        self._files: list[FileEntry] = []
        self._rows, self._numbers = bytearray(), bytearray()
        self._bands: list[Spool] = []
        self._raw, self._attached = self._spool(), self._spool()

    def __enter__(self) -> "PackWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _spool(self) -> Spool:
        return self._stack.enter_context(closing(Spool(self._folder)))

    def add(self, entry: TensorEntry, streams: Sequence[Streams]) -> None:
        """Add a tensor, names ascending.

        Raises
        ------
        ValueError
            A name out of order, or streams that do not fit their blocks.
        OutputError
            No space is left for temporary files.
        """
        self._check_order(self._entries, entry.name)
        for block, stream in zip(entry.blocks, streams, strict=True):
            expected = block.stream_sizes(entry.columns, entry.spec.dtype)
            if stream.sizes != expected:
                raise ValueError(f"{entry.name}: expected streams of {expected}, got {stream.sizes}")
            self._rows += stream.bitmaps
            self._numbers += numbers_to_bytes(stream.numbers, self._numbers_dtype)
            self._raw.write(stream.raw)
            for band, codes in enumerate(stream.bands):
                if band == len(self._bands):
                    self._bands.append(self._spool())
                self._bands[band].write(codes)
        self._entries.append(entry)

    @staticmethod
    def _check_order(entries: Sequence[TensorEntry | FileEntry], name: str) -> None:
        if entries and utf8(entries[-1].name) >= utf8(name):
            raise ValueError(f"expected names ascending, got {name} after {entries[-1].name}")

    def carry_file(self, name: str, data: bytes) -> None:
        """Add an auxiliary file that the pack carries, names ascending."""
        self._check_order(self._files, name)
        stored = _file_bytes(data)
        self._attached.write(stored)
        self._files.append(CarriedFile(name, len(data), len(stored)))

    def name_file(self, name: str, digest: str) -> None:
        """Add an auxiliary file that lies beside the base, names ascending."""
        self._check_order(self._files, name)
        self._files.append(NamedFile(name, digest))

    def write(
        self,
        file: IO[bytes],
        summary: Summary,
        leaves: Mapping[str, bytes],
        *,
        prefix: tuple[str, str] = ("", ""),
        absent: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """Write the pack and return its id.

        Parameters
        ----------
        file : binary file
            Open for writing and seeking, empty.
        summary : Summary
            Its `tensors` and `block` are set here.
        leaves : mapping
            The first 4 to 32 bytes of the leaf of each base tensor that is used.
        prefix, absent, metadata
            See `Index`.
        """
        index = Index(tuple(self._entries), prefix, tuple(absent), dict(metadata or {}), tuple(self._files))
        names = index.base_names()
        if names != sorted(leaves, key=utf8):
            raise ValueError("expected a leaf for each base tensor used and no other")
        text = index_text(index)
        parse_index(text, "index")  # An encoder writes valid packs only (spec section 9).
        contents: dict[str, ArenaContent] = {
            "base": [b"".join(leaves[name] for name in names)],
            "index": [compress(text, INDEX_LEVEL)],
            "rows": [compress(bytes(self._rows), INDEX_LEVEL)] if self._rows else [],
            "numbers": [bytes(self._numbers)],
            "codes": self._bands,
            "raw": [self._raw, self._attached],
        }
        lengths = {name: length for name, content in contents.items() if (length := sum(map(len, content)))}
        header, arenas = plan_file(summary, lengths, len(self._entries), len(leaves), self._numbers_dtype)
        file.write(header + bytes(arena_spec_bytes(*arenas.pop("digests"))))  # digests come last
        hasher = BlockHasher(digest_block_size(sum(lengths.values())))
        for name, form in arenas.items():
            padding = arena_spec_bytes(*form) - lengths[name]
            for piece in _pieces([*contents[name], bytes(padding)]):
                file.write(piece)
                hasher.update(piece)
        file.seek(len(header))
        rows = hasher.digests(header)
        file.write(rows)
        return rows[:DIGEST_BYTES]


Arenas: TypeAlias = dict[str, tuple[str, tuple[int, ...]]]


def plan_file(
    summary: Summary, lengths: Mapping[str, int], tensors: int, leaves: int, numbers: str
) -> tuple[bytes, Arenas]:
    """Return header and arenas of a file, from the content length of each arena in bytes, in file order; none is 0."""
    summary = replace(summary, tensors=tensors, block=digest_block_size(sum(lengths.values())))
    arenas = plan_arenas({name: _form(name, lengths[name], leaves, numbers) for name in lengths}, summary.block)
    return pack_header_bytes(summary, arenas), arenas


def planned_size(index: Index, summary: Summary, bitmaps: bytes, leaf_bytes: int, numbers: str) -> int:
    """Return the size in bytes of a pack of this index, before anything is coded.

    Parameters
    ----------
    index : Index
    summary : Summary
        Its `tensors` and `block` are ignored.
    bitmaps : bytes
        Bitmaps of all blocks, in order.
    leaf_bytes : int
        Length of a base tensor's leaf in the pack.
    numbers : {"F32", "BF16"}
    """
    layout = lay_out(index)
    leaves = len(index.base_names())
    lengths = {
        "base": leaves * leaf_bytes,
        "index": len(compress(index_text(index), INDEX_LEVEL)),
        "rows": len(compress(bitmaps, INDEX_LEVEL)) if bitmaps else 0,
        "numbers": layout.numbers * NUMBER_DTYPES[numbers],
        "codes": layout.codes,
        "raw": layout.raw,
    }
    lengths = {name: length for name, length in lengths.items() if length}
    header, arenas = plan_file(summary, lengths, len(index.tensors), leaves, numbers)
    return len(header) + sum(arena_spec_bytes(*form) for form in arenas.values())


def carried_entry(name: str, data: bytes) -> CarriedFile:
    """Return the index entry of a file that `PackWriter.carry_file` would add."""
    return CarriedFile(name, len(data), len(_file_bytes(data)))


def _file_bytes(data: bytes) -> bytes:
    """Return a carried file as it is stored: a zstd frame if that is shorter."""
    return min(compress(data, RAW_LEVEL if len(data) > LARGE_FILE else INDEX_LEVEL), data, key=len)


def _form(name: str, length: int, leaves: int, numbers: str) -> tuple[str, tuple[int, ...]]:
    """Return dtype and shape of an arena of that many bytes."""
    if name == "numbers":
        return numbers, (length // NUMBER_DTYPES[numbers],)
    return "U8", (leaves, length // leaves) if name == "base" else (length,)


def _pieces(content: "Sequence[bytes | Spool]") -> Iterable[bytes]:
    for part in content:
        yield from part.pieces() if isinstance(part, Spool) else [part]
