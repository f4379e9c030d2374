"""Headers of safetensors files that hold checkpoints: validated reading, and writing.

Packs are safetensors files too, but have a stricter reader of their own. Layout: an unsigned 64-bit
little-endian length N, N bytes of JSON, the tensors' bytes. After the safetensors project's ``tensor.rs``.
"""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, NoReturn

from dtscodec.errors import CheckpointError
from dtscodec.format.dtypes import MAX_NAME_BYTES, TensorSpec

HEADER_LIMIT = 100_000_000
"""Longest header, in bytes, that the safetensors library reads."""


class Entry(NamedTuple):
    """One tensor of a file: its spec, and the offsets of its bytes from the end of the header."""

    spec: TensorSpec
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """A parsed header: metadata, tensors in the order listed, and the file offset of the first byte of data."""

    metadata: dict[str, str]
    tensors: dict[str, Entry]
    data_start: int


def read_header(file: BinaryIO, where: str, *, limit: int = HEADER_LIMIT) -> SafetensorsHeader:
    """Read and check the header of a checkpoint; the inverse of `header_bytes`.

    Parameters
    ----------
    file : BinaryIO
        A seekable file. Only the header is read, after a check of its claimed length.
    where : str
        The file's name, for messages.
    limit : int
        Longest header accepted, in bytes.

    Returns
    -------
    SafetensorsHeader
        Offsets without gaps or overlap that end where the file does.

    Raises
    ------
    CheckpointError
        The header is not valid.

    >>> head = header_bytes({"format": "pt"}, {"w": TensorSpec("F32", (2, 3))})
    >>> header = read_header(io.BytesIO(head + bytes(24)), "demo")
    >>> header.tensors["w"], header.metadata, header.data_start == len(head)
    (Entry(spec=TensorSpec(dtype='F32', shape=(2, 3)), begin=0, end=24), {'format': 'pt'}, True)
    """
    # The claimed length is checked before the header is read.
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8:
        _fail(where, "at least 8 bytes", f"{size}: the file is cut off or no safetensors file")
    if length > limit:
        _fail(where, f"a header of at most {limit} bytes", f"a claim of {length}")
    if 8 + length > size:
        _fail(
            where,
            f"a file of at least {8 + length} bytes",
            f"{size}: the file is cut off or no safetensors file",
        )
    header = parse_header(file.read(length), where)
    data, found = size - 8 - length, max((entry.end for entry in header.tensors.values()), default=0)
    if data != found:
        kind = "the file is cut off" if data < found else "bytes that belong to no tensor"
        _fail(where, f"{found} bytes of tensors", f"{data}: {kind}")
    return header


def parse_header(text: bytes, where: str) -> SafetensorsHeader:
    """Parse and check the header of a checkpoint, without its length; see `read_header`.

    Parameters
    ----------
    text : bytes
        The JSON, perhaps with spaces after it.
    where : str
        The file's name, for messages.

    Raises
    ------
    CheckpointError
        The header is not valid.
    """
    document = _parse_json(text, where)
    metadata = _parse_metadata(document.pop("__metadata__", None), where)
    tensors = {name: _parse_entry(value, f"{where}: {name[:80]!r}", name) for name, value in document.items()}
    _check_offsets(tensors, where)
    return SafetensorsHeader(metadata, tensors, 8 + len(text))


def header_bytes(metadata: Mapping[str, str], specs: Mapping[str, TensorSpec]) -> bytes:
    """Return length and header of a checkpoint; the inverse of `read_header`.

    The header is padded with spaces to a multiple of 8 bytes.

    Parameters
    ----------
    metadata : mapping of str to str
        Entries of ``__metadata__``.
    specs : mapping of str to TensorSpec
        The tensors, in the order in which their bytes follow the header.
    """
    document: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, spec in specs.items():
        offsets = [offset, offset := offset + spec.nbytes]
        document[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": offsets}
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    # Spaces after the JSON align the data to 8 bytes.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object strictly: UTF-8, no key twice, no NaN.

    Raises
    ------
    CheckpointError
        The bytes are not a JSON object, or have a key twice.
    """
    try:
        document = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f"{where}: expected a JSON object, got {data[:20]!r}...: {e}") from e
    if not isinstance(document, dict):
        _fail(where, "a JSON object", f"a {type(document).__name__}")
    return document


def check_name(name: str, where: str) -> None:
    """Check that a name has 1 to 1,024 bytes of UTF-8 and is not ``__metadata__``.

    Raises
    ------
    CheckpointError
        The name is not valid.
    """
    # Lone surrogates have no UTF-8; they are refused below, with a message of their own.
    size = len(name.encode(errors="surrogatepass"))
    if not 1 <= size <= MAX_NAME_BYTES or name == "__metadata__":
        _fail(where, f"tensor names of 1 to {MAX_NAME_BYTES} bytes", f"{name[:40]!r} of {size}")
    if any("\ud800" <= c <= "\udfff" for c in name):
        _fail(where, "tensor names in Unicode", f"{name[:40]!r}")


def _parse_json(data: bytes, where: str) -> dict[str, Any]:
    if not data.startswith(b"{"):
        _fail(where, "a header that begins with '{'", f"{data[:8]!r}: no safetensors file")
    return parse_object(data, f"{where}: header")


def _parse_metadata(value: object, where: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        _fail(f"{where}: __metadata__", "an object of strings", repr(value)[:60])
    if any("\ud800" <= c <= "\udfff" for item in value.items() for text in item for c in text):
        _fail(f"{where}: __metadata__", "strings in Unicode", repr(value)[:60])
    return value


def _parse_entry(value: object, where: str, name: str) -> Entry:
    check_name(name, where)
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        _fail(where, "an object of dtype, shape and data_offsets", repr(value)[:80])
    shape, offsets = value["shape"], value["data_offsets"]
    if not _is_integers(shape) or not _is_integers(offsets) or len(offsets) != 2:
        _fail(where, "integers for shape and two data_offsets", f"{shape!r:.60} and {offsets!r:.60}")
    if not isinstance(value["dtype"], str):
        _fail(where, "a dtype of safetensors", f"{value['dtype']!r:.60}")
    try:
        spec = TensorSpec(value["dtype"], tuple(shape))  # type: ignore[arg-type]  # which checks it
    except ValueError as e:
        raise CheckpointError(f"{where}: {e}") from e
    begin, end = offsets
    if end - begin != spec.nbytes:
        _fail(where, f"{spec.nbytes} bytes for {spec}", f"data_offsets {begin} to {end}")
    return Entry(spec, begin, end)


def _is_integers(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _check_offsets(tensors: Mapping[str, Entry], where: str) -> None:
    """Check that tensors follow one another without gaps."""
    at = 0
    for name, entry in sorted(tensors.items(), key=lambda item: item[1][1:]):
        if entry.begin != at:
            _fail(
                f"{where}: {name!r}",
                f"data from offset {at} on",
                f"offset {entry.begin}: a gap or an overlap",
            )
        at = entry.end


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {key[:40]!r} comes twice")
        result[key] = value
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _fail(where: str, expected: str, got: str) -> NoReturn:
    raise CheckpointError(f"{where}: expected {expected}, got {got}")
