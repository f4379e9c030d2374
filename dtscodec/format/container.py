"""The safetensors file around a pack: header and arenas (spec sections 3.1 and 3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, TypeAlias

from dtscodec.errors import FormatError, TruncatedError, UnsupportedError
from dtscodec.format.primitives import canonical_json as canonical
from dtscodec.format.primitives.canonical_json import Fields, Json
from dtscodec.format.streams import ARENA_ITEM_BYTES
from dtscodec.format.summary import Summary, parse_summary, summary_text

# The table of spec section 3.2: arenas in file order, and those that begin at an aligned offset.
ARENAS: Final = ("digests", "base", "index", "rows", "numbers", "codes", "raw")
LAYER: Final = ("residual-digests", "residual-index", "residual")
"""Arenas of the residual layer, after all others (spec section 15.1)."""
ALIGNED: Final = frozenset({"numbers", "codes", "raw"})
ALIGNMENT: Final = 32
"""Bytes to which the header's end and some arenas are aligned. A digest has that length, so the number of digests does
not affect padding."""

LAYER_BLOCK: Final = 2**20
"""Size of a digest block of the residual layer, in bytes."""
DIGEST_BYTES: Final = 32
"""Length of a SHA-256."""
MAX_HEADER: Final = 2**16 - 8
"""Longest header, in bytes."""


ArenaSpec: TypeAlias = tuple[str, tuple[int, ...]]
"""Dtype and shape of an arena."""


@dataclass(frozen=True, slots=True)
class Arena:
    """One tensor of the file.

    Parameters
    ----------
    dtype : str
        ``U8``, ``F32`` or ``BF16``.
    shape : tuple of int
        Its extents.
    begin, end : int
        Its bytes, as offsets from the beginning of the file.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """The parsed header of a pack.

    Parameters
    ----------
    data : bytes
        The bytes of length and header in the file.
    summary : Summary
        The metadata entry.
    arenas : mapping of str to Arena
        By name, in file order.
    """

    data: bytes
    summary: Summary
    arenas: Mapping[str, Arena]

    @property
    def has_layer(self) -> bool:
        """Whether the file has a residual layer."""
        return self.summary.content is not None

    @property
    def front_end(self) -> int:
        """Offset in the file of the end of its front: of all arenas but those of the residual layer."""
        return max(arena.end for name, arena in self.arenas.items() if name not in LAYER)

    @property
    def digest_count(self) -> int:
        """Number of digest blocks of the front."""
        return self.arenas["digests"].shape[0] - 1 - self.has_layer


# Writing


def padding_before(name: str, offset: int) -> int:
    """Return the number of zeros that must follow `offset` so that the arena `name` is aligned."""
    return -offset % ALIGNMENT if name in ALIGNED else 0


def pack_header_bytes(summary: Summary, arenas: Mapping[str, ArenaSpec]) -> bytes:
    """Return length and header of a file; the inverse of `parse_pack_header`.

    Parameters
    ----------
    summary : Summary
        The metadata entry.
    arenas : mapping of str to ArenaSpec
        All arenas, in file order.

    Raises
    ------
    ValueError
        The header is too long.
    """
    document: dict[str, Json] = {"__metadata__": {"dtscodec": summary_text(summary)}}
    offset = 0
    for name, (dtype, shape) in arenas.items():
        end = offset + arena_spec_bytes(dtype, shape)
        document[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = canonical.dumps(document)
    # Spaces align the data that follows (rule C2).
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > MAX_HEADER:
        raise ValueError(f"expected a header of at most {MAX_HEADER} bytes, got {len(text)}")
    return len(text).to_bytes(8, "little") + text


def arena_spec_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the length in bytes of an arena of a dtype and shape."""
    size = ARENA_ITEM_BYTES[dtype]
    for extent in shape:
        size *= extent
    return size


# Reading


def parse_pack_header(begin: bytes, size: int, where: str) -> Header:
    """Parse and check the header of a file; the inverse of `pack_header_bytes`.

    Parameters
    ----------
    begin : bytes
        The first bytes of the file: all of it, or at least 64 KiB.
    size : int
        Length of the file in bytes.
    where : str
        Name of the file, for messages.

    Raises
    ------
    FormatError
        Rules C1 to C6, D1 and S1 to S3.
    """
    # Length of the header, before any of it is used (rules C1 and C2).
    if size < 8:
        raise TruncatedError("truncated", where, f"expected at least 8 bytes, got {size}", "3.1")
    length = int.from_bytes(begin[:8], "little")
    if length > MAX_HEADER or (8 + length) % ALIGNMENT:
        detail = f"expected at most {MAX_HEADER} bytes, 8 less than a multiple of {ALIGNMENT}, got {length}: no pack"
        raise FormatError("header", where, detail, "3.1")
    if size < 8 + length:
        raise TruncatedError("truncated", where, f"expected at least {8 + length} bytes, got {size}", "3.1")
    # Its JSON, then the summary in it, then the arenas.
    data = begin[: 8 + length]
    try:
        text, arenas = _parse_json(data[8:])
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError("header", where, str(error), "3.1") from error
    summary = parse_summary(text, where)
    header = Header(data, summary, {name: _shifted(arena, 8 + length) for name, arena in arenas.items()})
    _check_arenas(header, size, where)
    return header


def _parse_json(padded: bytes) -> tuple[str, dict[str, Arena]]:
    """Return the summary's text and the arenas in file order (rules C3 and C4)."""
    text = padded.rstrip(b" ")
    # Rule C3: no more spaces than alignment needs.
    if len(padded) - len(text) >= ALIGNMENT:
        raise ValueError(f"expected fewer than {ALIGNMENT} spaces after the header")
    document = canonical.loads(text)
    if not isinstance(document, dict):
        raise ValueError("expected an object")
    metadata = Fields(document.pop("__metadata__", None), "__metadata__")
    summary = metadata.take("dtscodec", str)
    metadata.end()
    arenas = {name: _parse_arena(name, item) for name, item in document.items()}
    # Canonical JSON sorts arenas by name; their offsets give the order in the file.
    return summary, dict(sorted(arenas.items(), key=lambda item: (item[1].begin, item[1].end)))


def _parse_arena(name: str, item: Json) -> Arena:
    fields = Fields(item, name)
    dtype, shape = fields.take("dtype", str), tuple(fields.take_list("shape", int))
    offsets = fields.take_list("data_offsets", int)
    fields.end()
    if any(extent < 0 for extent in shape) or len(offsets) != 2 or min(offsets) < 0:
        raise ValueError(f"expected extents and two offsets of at least 0 for {name}")
    return Arena(dtype, shape, offsets[0], offsets[1])


def _shifted(arena: Arena, by: int) -> Arena:
    return Arena(arena.dtype, arena.shape, arena.begin + by, arena.end + by)


def _check_arenas(header: Header, size: int, where: str) -> None:
    """Check order, alignment, sizes and digests of the arenas (rules C1, C5, C6, C8 and D1)."""

    def refuse(detail: str) -> NoReturn:
        raise FormatError("layout", where, detail, "3.2")

    # Names: those of version 1, and of optional features that the summary lists.
    layer = LAYER if header.has_layer else ()
    extra = [name for name in header.arenas if name not in (*ARENAS, *layer)]
    allowed = [f"x.{feature}" for feature in header.summary.optional]
    for name in extra:
        if name not in allowed:
            raise UnsupportedError("unknown", where, f"expected an arena of version 1, got {name!r:.60}", "13")
    # Order: that of the spec's table; digests and index are required.
    order = [*ARENAS, *extra, *layer]
    names = list(header.arenas)
    needed = {"digests", "index", *layer[:2]}
    if [name for name in order if name in header.arenas] != names or not needed <= header.arenas.keys():
        refuse(f"expected arenas in the order {', '.join(order)}, got {', '.join(names)}")
    # Arenas follow one another without gaps, in the table's dtypes and shapes, aligned as in the table.
    offset = len(header.data)
    for name, arena in header.arenas.items():
        if not _fits(name, arena) or arena.begin != offset:
            refuse(f"arena {name}: expected the table's dtype and shape from byte {offset} on, got {arena}")
        if name in ALIGNED and arena.begin % ALIGNMENT:
            refuse(f"arena {name}: expected a multiple of {ALIGNMENT} for its first byte, got {arena.begin}")
        offset = arena.end
    # The file ends with the last arena, and has a digest for each block of the front, and of the residual layer.
    if size < offset:
        raise TruncatedError("truncated", where, f"expected {offset} bytes, got {size}", "3.1")
    if size > offset:
        refuse(f"expected {offset} bytes, got {size}")
    blocks = -(-(header.front_end - header.arenas["digests"].end) // header.summary.block)
    if header.digest_count != blocks:
        refuse(f"expected {blocks} digest blocks, got {header.digest_count}")
    if header.has_layer:
        digests = header.arenas[LAYER[0]]
        blocks = -(-(size - digests.end) // LAYER_BLOCK)
        if digests.shape[0] != blocks:
            refuse(f"expected {blocks} digest blocks of the residual layer, got {digests.shape[0]}")


def _fits(name: str, arena: Arena) -> bool:
    """Return whether an arena has the dtype, shape and length of its row of the spec's table, and is not empty."""
    dtypes = ("F32", "BF16") if name == "numbers" else ("U8",)
    if (
        arena.dtype not in dtypes
        or arena.end - arena.begin != arena_spec_bytes(arena.dtype, arena.shape)
        or arena.end <= arena.begin
    ):
        return False
    if name in ("digests", "residual-digests"):
        return len(arena.shape) == 2 and arena.shape[1] == DIGEST_BYTES
    if name == "base":
        return len(arena.shape) == 2 and 4 <= arena.shape[1] <= DIGEST_BYTES
    # Arenas of optional features may have any shape (rule C8).
    return len(arena.shape) == 1 or name not in (*ARENAS, *LAYER)
