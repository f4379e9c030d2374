"""A residual layer is added to a pack, or taken from it again (spec section 15.1).

The front of the file, codes and all, does not change: only header, pack id and the place of the digests do.
"""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import IO

from dtscodec.files.spool import PIECE_BYTES, Spool
from dtscodec.format.arena_reader import ArenaReader
from dtscodec.format.container import DIGEST_BYTES, LAYER, LAYER_BLOCK, ArenaSpec, pack_header_bytes
from dtscodec.format.digests import BlockHasher, pack_id
from dtscodec.format.primitives.zstd_frames import INDEX_LEVEL, compress


def write_layered(front: ArenaReader, file: IO[bytes], content: str, index: bytes, residual: Spool) -> bytes:
    """Write a pack with a residual layer, and return its id; `write_front` is the inverse.

    Parameters
    ----------
    front : ArenaReader
        A pack without such a layer.
    file : binary file
        Open for writing, empty.
    content : str
        Digest of what the pack decodes to, 64 hex digits.
    index : bytes
        Text of the layer's index.
    residual : Spool
        The chunks of all tensors, then the weight files.
    """
    frame = compress(index, INDEX_LEVEL)
    hasher = BlockHasher(LAYER_BLOCK)
    for piece in (frame, *residual.pieces()):
        hasher.update(piece)
    layer_digests = b"".join(hasher.rows())
    layer = {LAYER[0]: ("U8", (len(hasher.rows()), DIGEST_BYTES)), LAYER[1]: ("U8", (len(frame),))}
    if len(residual):
        layer[LAYER[2]] = ("U8", (len(residual),))
    # The digests have one more row: that of the layer's own digests.
    arenas = _front_arenas(front, 1) | layer
    header = pack_header_bytes(replace(front.header.summary, content=content), arenas)
    rows = [*front.front_rows, sha256(layer_digests).digest()]
    own = pack_id(header, rows)
    for piece in (header, own, *rows, *_front_pieces(front), layer_digests, frame, *residual.pieces()):
        file.write(piece)
    return own


def write_front(pack: ArenaReader, file: IO[bytes]) -> bytes:
    """Write the pack without its residual layer, and return its id; the inverse of `write_layered`.

    Parameters
    ----------
    pack : ArenaReader
        A pack with such a layer.
    file : binary file
        Open for writing, empty.
    """
    header = pack_header_bytes(replace(pack.header.summary, content=None), _front_arenas(pack, 0))
    own = pack_id(header, pack.front_rows)
    for piece in (header, own, *pack.front_rows, *_front_pieces(pack)):
        file.write(piece)
    return own


def _front_arenas(pack: ArenaReader, more_rows: int) -> dict[str, ArenaSpec]:
    arenas = {name: (a.dtype, a.shape) for name, a in pack.header.arenas.items() if name not in LAYER}
    return arenas | {"digests": ("U8", (1 + len(pack.front_rows) + more_rows, DIGEST_BYTES))}


def _front_pieces(pack: ArenaReader) -> Iterator[bytes]:
    """Yield the verified bytes of the front after its digests."""
    begin, end = pack.header.arenas["digests"].end, pack.header.front_end
    for at in range(begin, end, PIECE_BYTES):
        yield pack.read_span(at, min(at + PIECE_BYTES, end))
