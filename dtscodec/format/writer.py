"""Writing a pack: streams are collected as tensors come, the file is put together at the end (spec section 3)."""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO

from dtscodec.format.blocks import Block, LowRank, Raw, Values
from dtscodec.format.container import BlockHasher, digest_block_size, header_bytes, plan_arenas
from dtscodec.format.frames import INDEX_LEVEL, RAW_LEVEL, compress
from dtscodec.format.index import CarriedFile, FileEntry, Index, NamedFile, TensorEntry, utf8
from dtscodec.format.manifest import index_text
from dtscodec.format.streams import NUMBER_DTYPES, Streams, numbers_to_bytes
from dtscodec.format.summary import Summary

MEMORY_PER_STREAM = 2**25
"""Bytes of a stream kept in memory; what is longer waits in an unnamed temporary file."""

_COPY_BYTES = 2**20


class PackWriter:
    """Collects a pack tensor by tensor.

    Parameters
    ----------
    numbers : {"F32", "BF16"}
        How norms, levels and scales are stored.
    folder : Path or None
        Where long streams wait.

    Examples
    --------
    >>> import io
    >>> from dtscodec.format.dtypes import TensorSpec
    >>> with PackWriter() as writer:
    ...     writer.add(TensorEntry("a", TensorSpec("U8", (3,)), (Raw(3),)), [Streams(raw=b"abc")])
    ...     file = io.BytesIO()
    ...     id = writer.write(file, Summary(tensors=1), leaves={})
    >>> len(file.getvalue()) % 32
    3
    """

    def __init__(self, numbers: str = "F32", folder: Path | None = None) -> None:
        self._numbers_dtype = numbers
        self._folder = None if folder is None else str(folder)
        self._stack = ExitStack()
        self._entries: list[TensorEntry] = []
        self._files: list[FileEntry] = []
        self._rows, self._numbers = bytearray(), bytearray()
        self._bands: list[IO[bytes]] = []
        self._raw, self._attached = self._spool(), self._spool()

    def __enter__(self) -> "PackWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _spool(self) -> IO[bytes]:
        return self._stack.enter_context(tempfile.SpooledTemporaryFile(MEMORY_PER_STREAM, dir=self._folder))

    def add(self, entry: TensorEntry, streams: Sequence[Streams]) -> None:
        """Add a tensor, names ascending.

        Raises
        ------
        ValueError
            A name out of order, or streams that do not fit their blocks.
        """
        self._check_order(self._entries, entry.name)
        for block, stream in zip(entry.blocks, streams, strict=True):
            _check_streams(entry, block, stream)
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
        """Add a file that the pack holds, names ascending."""
        self._check_order(self._files, name)
        frame = compress(data, RAW_LEVEL if len(data) > _COPY_BYTES else INDEX_LEVEL)
        stored = min(frame, data, key=len)
        self._attached.write(stored)
        self._files.append(CarriedFile(name, len(data), len(stored)))

    def name_file(self, name: str, digest: str) -> None:
        """Add a file that lies beside the base, names ascending."""
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
            For each base tensor used the first 4 to 32 bytes of its leaf.
        prefix, absent, metadata
            See `Index`.
        """
        index = Index(tuple(self._entries), prefix, tuple(absent), dict(metadata or {}), tuple(self._files))
        if index.base_names() != sorted(leaves, key=utf8):
            raise ValueError("expected a leaf for each base tensor used and no other")
        small = {
            "base": b"".join(leaves[name] for name in index.base_names()),
            "index": compress(index_text(index), INDEX_LEVEL),
            "rows": compress(bytes(self._rows), INDEX_LEVEL) if self._rows else b"",
            "numbers": bytes(self._numbers),
        }
        large = {"codes": self._bands, "raw": [self._raw, self._attached]}
        contents = self._contents(small, large, len(leaves))
        size = sum(len(data) for data in small.values()) + sum(_length(s) for spools in large.values() for s in spools)
        summary = replace(summary, tensors=len(self._entries), block=digest_block_size(size))
        arenas = plan_arenas(contents, summary.block)
        header = header_bytes(summary, arenas)
        digests_bytes = arenas["digests"][1][0] * 32
        file.write(header + bytes(digests_bytes))
        sink = _HashingSink(file, BlockHasher(summary.block))
        for name, (dtype, shape) in arenas.items():
            if name != "digests":
                end = sink.length + math.prod(shape) * NUMBER_DTYPES.get(dtype, 1)
                for data in [small[name]] if name in small else _pieces(large[name]):
                    sink.write(data)
                sink.write(bytes(end - sink.length))
        digests = sink.hasher.digests(header)
        file.seek(len(header))
        file.write(digests)
        return digests[:32]

    def _contents(
        self, small: Mapping[str, bytes], large: Mapping[str, list[IO[bytes]]], leaves: int
    ) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype and shape of each arena that is not empty."""
        lengths = {name: len(data) for name, data in small.items()}
        lengths |= {name: sum(map(_length, spools)) for name, spools in large.items()}
        contents: dict[str, tuple[str, tuple[int, ...]]] = {}
        for name, length in lengths.items():
            if not length:
                continue
            if name == "base":
                contents[name] = ("U8", (leaves, length // leaves))
            elif name == "numbers":
                contents[name] = (self._numbers_dtype, (length // NUMBER_DTYPES[self._numbers_dtype],))
            else:
                contents[name] = ("U8", (length,))
        return contents


class _HashingSink:
    """Writes to a file and hashes what it writes."""

    def __init__(self, file: IO[bytes], hasher: BlockHasher) -> None:
        self._file = file
        self.hasher = hasher
        self.length = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.hasher.update(data)
        self.length += len(data)


def _length(spool: IO[bytes]) -> int:
    return spool.tell()


def _pieces(spools: Sequence[IO[bytes]]) -> Iterator[bytes]:
    """The content of spools, one after the other, in pieces of bounded size."""
    for spool in spools:
        spool.seek(0)
        while piece := spool.read(_COPY_BYTES):
            yield piece


def _check_streams(entry: TensorEntry, block: Block, streams: Streams) -> None:
    """Raise ValueError unless the streams are as long as the block says."""
    columns = entry.columns
    expected: tuple[int, int, list[int], int] = (0, 0, [], 0)
    if isinstance(block, Raw):
        expected = (0, 0, [], block.stored_bytes(entry.spec, columns))
    elif isinstance(block, Values | LowRank):
        expected = (block.bitmap_bytes(columns), block.number_count(columns), block.band_bytes(columns), 0)
    got = (
        len(streams.bitmaps),
        len(streams.numbers),
        [len(band) for band in streams.bands],
        len(streams.raw),
    )
    if got != expected:
        raise ValueError(f"{entry.name}: expected streams of {expected}, got {got}")
