"""The index of the residual layer, and its JSON (spec section 15.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

from dtscodec.errors import FormatError
from dtscodec.format.dtypes import MAX_NAME_BYTES
from dtscodec.format.index import TensorEntry
from dtscodec.format.naming import MAX_FILE_BYTES, check_names, is_shard_index, is_valid_component, utf8
from dtscodec.format.primitives import canonical_json as canonical
from dtscodec.format.primitives.canonical_json import Fields, Json
from dtscodec.format.primitives.hex_digest import is_hex_digest
from dtscodec.format.residual.chunk import chunk_rows
from dtscodec.format.residual.integers import element_matrix

MAX_COLUMNS = 2**31
"""Most columns of elements of a tensor with chunks."""


@dataclass(frozen=True, slots=True)
class TensorResidual:
    """What turns the prediction of one tensor into the tensor.

    Parameters
    ----------
    leaf : str
        SHA-256 of the tensor (spec section 7), 64 hex digits.
    chunks : tuple of int
        Length of each chunk in bytes; empty if all predictions are right.
    with_delta : bool
        Whether the prediction has the delta of coded blocks.

    Raises
    ------
    ValueError
        A value is not as said.
    """

    leaf: str
    chunks: tuple[int, ...] = ()
    with_delta: bool = False

    def __post_init__(self) -> None:
        if not is_hex_digest(self.leaf):
            raise ValueError(f"expected a leaf of 64 hex digits, got {self.leaf!r:.80}")
        if any(length < 0 for length in self.chunks) or (self.chunks and not any(self.chunks)):
            raise ValueError("expected lengths of chunks, at least one of them not 0, or no chunks")


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A weight file of the fine-tune, or an index of shards, without the bytes of tensors.

    Parameters
    ----------
    name : str
        Its path in the model's directory.
    size : int
        Bytes that are stored of it: length and header of a safetensors file, or all of an index.
    stored : int
        Bytes that these take in the pack.

    Raises
    ------
    FormatError
        The file must not be there, or a size is not as section 15.1 says (rule X6).
    """

    name: str
    size: int
    stored: int

    def __post_init__(self) -> None:
        parts = self.name.split("/")
        is_weights = self.name.endswith(".safetensors") or is_shard_index(parts[-1])
        if not is_weights or not all(map(is_valid_component, parts)) or len(utf8(self.name)) > MAX_NAME_BYTES:
            raise FormatError("file", "weights", f"expected the name of a weight file, got {self.name!r:.80}", "15.1")
        if not 0 < self.stored <= self.size:
            detail = f"expected 1 to {self.size} bytes that {self.name} is stored in, got {self.stored}"
            raise FormatError("file", "weights", detail, "15.1")

    @property
    def is_index(self) -> bool:
        """Whether it is an index of shards."""
        return not self.name.endswith(".safetensors")


@dataclass(frozen=True, slots=True)
class LayerIndex:
    """The index of the residual layer.

    Parameters
    ----------
    tensors : tuple of TensorResidual
        In the order of the index of the front.
    weights : tuple of WeightFile
        The fine-tune's weight files, names ascending; none if they were not safetensors files.
    """

    tensors: tuple[TensorResidual, ...]
    weights: tuple[WeightFile, ...] = ()


def layer_index_text(index: LayerIndex) -> bytes:
    """Return the canonical JSON of the index; the inverse of `parse_layer_index`."""
    document: dict[str, Json] = {"tensors": [_tensor_json(tensor) for tensor in index.tensors]}
    if index.weights:
        document["weights"] = [{"name": file.name, "size": file.size, "stored": file.stored} for file in index.weights]
    return canonical.dumps(document)


def _tensor_json(tensor: TensorResidual) -> Json:
    document: dict[str, Json] = {"leaf": tensor.leaf}
    if tensor.chunks:
        document["chunks"] = list(tensor.chunks)
    if tensor.with_delta:
        document["prediction"] = "delta"
    return document


def parse_layer_index(text: bytes, entries: Sequence[TensorEntry], where: str) -> LayerIndex:
    """Parse and check the index; the inverse of `layer_index_text`.

    Parameters
    ----------
    text : bytes
        Canonical JSON.
    entries : sequence of TensorEntry
        The tensors of the front.
    where : str
        Name of the index, for messages.

    Raises
    ------
    FormatError
        Rules X1, X2 and X6, or (an `UnsupportedError`) an unknown key.
    """
    try:
        fields = Fields(canonical.loads(text), "the index of the residual layer")
        tensors = tuple(map(_parse_tensor, fields.take_list("tensors", dict)))
        weights = tuple(map(_parse_weights, fields.take_list("weights", dict, [])))
        fields.done("15.1")
        check_names([file.name for file in weights])
        _check_weights(weights)
        index = LayerIndex(tensors, weights)
        if layer_index_text(index) != text:
            raise ValueError("expected defaults to be left out")
        if len(tensors) != len(entries):
            raise ValueError(f"expected {len(entries)} tensors, got {len(tensors)}")
        for tensor, entry in zip(tensors, entries, strict=True):
            _check_chunks(tensor, entry)
    except FormatError as error:
        raise error.within(where) from error
    except (ValueError, OverflowError) as error:
        raise FormatError("index", where, str(error), "15.1") from error
    return index


def _parse_tensor(document: dict[str, Json]) -> TensorResidual:
    fields = Fields(document, "a tensor")
    leaf, chunks = fields.take("leaf", str), tuple(fields.take_list("chunks", int, []))
    with_delta = fields.take_flag("prediction", "delta")
    fields.done("15.1")
    return TensorResidual(leaf, chunks, with_delta)


def _parse_weights(document: dict[str, Json]) -> WeightFile:
    fields = Fields(document, "a weight file")
    file = WeightFile(fields.take("name", str), fields.take("size", int), fields.take("stored", int))
    fields.done("15.1")
    return file


def _check_weights(weights: Sequence[WeightFile]) -> None:
    """Check weight files together (rule X6)."""
    names = {file.name for file in weights}
    total = sum(file.size for file in weights)
    if total > MAX_FILE_BYTES:
        raise FormatError("file", "weights", f"expected at most {MAX_FILE_BYTES} bytes in all, got {total}", "15.1")
    for name in names:
        if any(name[:at] in names for at, letter in enumerate(name) if letter == "/"):
            raise FormatError("file", "weights", f"expected no file in {name!r:.80} that is a folder, too", "15.1")


def _check_chunks(tensor: TensorResidual, entry: TensorEntry) -> None:
    """Check that a tensor has as many chunks as its rows need (rule X2)."""
    if (tensor.chunks or tensor.with_delta) and entry.tied_to is not None:
        raise ValueError(f"expected no chunks of {entry.name}, which is tied")
    if tensor.chunks:
        rows, columns = element_matrix(entry.spec, entry.split)
        expected = -(-rows // chunk_rows(columns)) if columns else 0
        if columns > MAX_COLUMNS:
            raise ValueError(f"expected at most {MAX_COLUMNS} columns in {entry.name}, got {columns}")
        if len(tensor.chunks) != expected:
            raise ValueError(f"expected {expected} chunks of {entry.name}, got {len(tensor.chunks)}")


def chunk_spans(index: LayerIndex) -> tuple[list[list[tuple[int, int]]], dict[str, tuple[int, int]], int]:
    """Return the spans of each tensor's chunks, those of weight files, and the length of the arena `residual`."""
    at, tensors = 0, []
    for tensor in index.tensors:
        spans = []
        for length in tensor.chunks:
            spans.append((at, at + length))
            at += length
        tensors.append(spans)
    files: dict[str, tuple[int, int]] = {}
    for file in index.weights:
        files[file.name] = (at, at + file.stored)
        at += file.stored
    return tensors, files, at
