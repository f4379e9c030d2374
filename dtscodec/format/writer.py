"""Writing of a pack: streams are collected tensor by tensor, the file is assembled at the end (spec section 3)."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import IO, TypeAlias

from dtscodec.files.spool import Spool
from dtscodec.format.container import DIGEST_BYTES, arena_spec_bytes
from dtscodec.format.digests import BlockHasher, digest_block_size
from dtscodec.format.index import CarriedFile, ChangedFile, FileEntry, Index, NamedFile, TensorEntry
from dtscodec.format.index_json import index_text, parse_index
from dtscodec.format.layout import plan_file
from dtscodec.format.naming import utf8
from dtscodec.format.primitives.zstd_frames import INDEX_LEVEL, compress
from dtscodec.format.stored_files import compress_file
from dtscodec.format.streams import Streams, numbers_to_bytes
from dtscodec.format.summary import Summary
from dtscodec.format.weight_files import DEFAULT_STEM, used_folders

ArenaContent: TypeAlias = "Sequence[bytes | Spool]"


class PackWriter:
    """Writer of a pack, to which tensors are added one by one; the inverse of `dtscodec.format.reader.PackReader`.

    A context manager.

    Parameters
    ----------
    numbers : {"F32", "BF16"}
        Dtype in which norms, levels and scales are stored.
    folder : Path, optional
        Directory for temporary files of long streams; by default that of the system.

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
        # The arena `raw` holds exact blocks, then carried and changed files: a spool for each.
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
        """Add a tensor. Tensors are added in ascending order of names.

        Parameters
        ----------
        entry : TensorEntry
            The tensor and its blocks.
        streams : sequence of Streams
            The streams of each block.

        Raises
        ------
        ValueError
            The name is out of order, or streams do not fit their blocks.
        OutputError
            There is no space left for temporary files.
        """
        self._check_order(self._entries, entry.name)
        for block, stream in zip(entry.blocks, streams, strict=True):
            expected = block.stream_sizes(entry.columns, entry.spec.dtype)
            if stream.sizes != expected:
                raise ValueError(f"{entry.name}: expected streams of {expected}, got {stream.sizes}")
            self._rows += stream.bitmaps
            self._numbers += numbers_to_bytes(stream.numbers, self._numbers_dtype)
            self._raw.write(stream.raw)
            # One spool per band: the arena has first bands of all blocks, then second ones, and so on.
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
        """Add an auxiliary file that the pack carries, in ascending order of names."""
        self._check_order(self._files, name)
        stored = compress_file(data)
        self._attached.write(stored)
        self._files.append(CarriedFile(name, len(data), len(stored)))

    def change_file(self, name: str, size: int, frame: bytes, digest: str) -> None:
        """Add an auxiliary file that is a change of the base's, in ascending order of names.

        Parameters
        ----------
        name : str
            Its name.
        size : int
            Its length in bytes.
        frame : bytes
            The change, from `dtscodec.format.stored_files.compress_change`.
        digest : str
            SHA-256 of the base's file, 64 hex digits.
        """
        self._check_order(self._files, name)
        self._attached.write(frame)
        self._files.append(ChangedFile(name, size, len(frame), digest))

    def name_file(self, name: str, digest: str) -> None:
        """Add an auxiliary file that is the base's, in ascending order of names; `digest` is its SHA-256 in hex."""
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
        stem: str = DEFAULT_STEM,
        folders: Sequence[str] = (),
    ) -> bytes:
        """Write the pack and return its id.

        Parameters
        ----------
        file : binary file
            Open for writing and seeking, empty.
        summary : Summary
            The summary; its `tensors` and `block` are replaced, and `content` is dropped.
        leaves : mapping of str to bytes
            The first 4 to 32 bytes of the leaf of each base tensor that is used.
        prefix, absent, metadata, stem, folders
            See `Index`. Folders without tensors are left out.

        Returns
        -------
        bytes
            The pack id.

        Raises
        ------
        ValueError
            `leaves` are not those of the base tensors used, or the header would be too long.
        """
        # The index, read back: an encoder writes valid packs only (spec section 9).
        texts = dict(metadata or {})
        used = used_folders((entry.name for entry in self._entries), folders)
        index = Index(tuple(self._entries), prefix, tuple(absent), texts, tuple(self._files), stem, used)
        names = index.base_names()
        if names != sorted(leaves, key=utf8):
            raise ValueError("expected a leaf for each base tensor used and no other")
        text = index_text(index)
        parse_index(text, "index")
        # Arenas: their contents, then their sizes with padding.
        contents: dict[str, ArenaContent] = {
            "base": [b"".join(leaves[name] for name in names)],
            "index": [compress(text, INDEX_LEVEL)],
            "rows": [compress(bytes(self._rows), INDEX_LEVEL)] if self._rows else [],
            "numbers": [bytes(self._numbers)],
            "codes": self._bands,
            "raw": [self._raw, self._attached],
        }
        # Arenas that would be empty are left out (section 3.2).
        lengths = {name: length for name, content in contents.items() if (length := sum(map(len, content)))}
        header, arenas = plan_file(summary, lengths, len(self._entries), len(leaves), self._numbers_dtype)
        # Zeros in place of the digests, then the other arenas, hashed on the way; digests last.
        file.write(header + bytes(arena_spec_bytes(*arenas.pop("digests"))))
        hasher = BlockHasher(digest_block_size(sum(lengths.values())))
        for name, spec in arenas.items():
            padding = arena_spec_bytes(*spec) - lengths[name]
            for piece in _pieces([*contents[name], bytes(padding)]):
                file.write(piece)
                hasher.update(piece)
        file.seek(len(header))
        rows = hasher.digests(header)
        file.write(rows)
        return rows[:DIGEST_BYTES]


def _pieces(content: "Sequence[bytes | Spool]") -> Iterable[bytes]:
    for part in content:
        yield from part.pieces() if isinstance(part, Spool) else [part]
