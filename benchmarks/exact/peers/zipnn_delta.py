"""The delta mode of zipnn: exclusive or of two byte strings of equal length, byte groups, Huffman coding or zstd."""

from pathlib import Path
from typing import Any

from benchmarks.exact.pair import Pair
from benchmarks.exact.safetensors_layout import header_of, spans
from benchmarks.exact.scheme import Scheme

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
HEADER, BODY = "header", "body.znn"


class ZipnnDelta(Scheme):
    """The body of the file against the base's; the header beside it."""

    name = "zipnn delta"
    setting = "method AUTO, the dtype given, one thread; other methods give the same bytes"
    package = "zipnn"

    def encode(self, pair: Pair, prepared: Path, packed: Path) -> None:
        """See `Scheme`."""
        header = header_of(pair.fine)
        content, other = (path.read_bytes()[len(header) :] for path in (pair.fine, pair.laid_out))
        (packed / HEADER).write_bytes(header)
        (packed / BODY).write_bytes(_coder(header).compress(content, delta_second_data=other))

    def decode(self, pair: Pair, prepared: Path, packed: Path, out: Path) -> None:
        """See `Scheme`."""
        header, other = (packed / HEADER).read_bytes(), pair.laid_out.read_bytes()
        content = (packed / BODY).read_bytes()
        with out.open("wb") as file:
            file.write(header)
            file.write(_coder(header).decompress(content, delta_second_data=other[len(header) :]))


def _coder(header: bytes) -> Any:
    from zipnn import ZipNN  # type: ignore[import-not-found]

    dtype = max(spans(header), key=lambda span: span.stop - span.start).dtype
    return ZipNN(input_format="byte", bytearray_dtype=DTYPES[dtype], delta_compressed_type="byte", threads=1)
