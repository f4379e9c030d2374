"""Index <-> canonical JSON (spec section 4)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from dtscodec.errors import FormatError
from dtscodec.format.blocks import BaseRows, Block, parse_block
from dtscodec.format.dtypes import MAX_DIMENSIONS, MAX_ELEMENTS, TensorSpec
from dtscodec.format.index import Index, TensorEntry
from dtscodec.format.index_files_json import check_files, check_weight_files, file_json, parse_file
from dtscodec.format.naming import base_name, check_names
from dtscodec.format.primitives import canonical_json as canonical
from dtscodec.format.primitives.canonical_json import Fields, Json
from dtscodec.format.weight_files import DEFAULT_STEM

MAX_TENSORS = 2**20
MAX_BLOCKS = 2**22


def index_text(index: Index) -> bytes:
    """Return the canonical JSON of an index; the inverse of `parse_index`."""
    document: dict[str, Json] = {"tensors": [_tensor_json(entry, index.prefix) for entry in index.tensors]}
    # Fields that have their default value are left out (section 4.1).
    if index.prefix[0] != index.prefix[1]:
        document["prefix"] = list(index.prefix)
    if index.absent:
        document["absent"] = list(index.absent)
    if index.metadata:
        document["metadata"] = dict(index.metadata)
    if index.files:
        document["files"] = [file_json(entry) for entry in index.files]
    if index.stem != DEFAULT_STEM:
        document["stem"] = index.stem
    if index.folders:
        document["folders"] = list(index.folders)
    return canonical.dumps(document)


def parse_index(text: bytes, where: str) -> Index:
    """Parse and check an index; the inverse of `index_text`.

    Parameters
    ----------
    text : bytes
        Canonical JSON.
    where : str
        Name of the index, for messages.

    Raises
    ------
    FormatError
        With reason ``index``, ``limit``, ``file`` or (an `UnsupportedError`) ``unknown``.
    """
    with _located(where):
        fields = Fields(canonical.loads(text), "the index")
        prefix = _parse_prefix(fields)
        index = Index(
            tensors=tuple(_parse_tensors(fields, prefix)),
            prefix=prefix,
            absent=tuple(fields.take_list("absent", str, [])),
            metadata=_parse_metadata(fields),
            files=tuple(parse_file(item) for item in fields.take_list("files", dict, [])),
            stem=fields.take("stem", str, DEFAULT_STEM),
            folders=tuple(fields.take_list("folders", str, [])),
        )
        fields.done("4")
        # Rules that concern more than one entry.
        check_names([entry.name for entry in index.tensors])
        check_names(list(index.absent))
        _check_ties(index)
        check_files(index)
        check_weight_files(index)
        # A default that is written out makes another text than that of its index (rule I2).
        if index_text(index) != text:
            raise ValueError("expected defaults to be left out")
        return index


@contextmanager
def _located(where: str) -> Iterator[None]:
    """Turn a ValueError within this context into a FormatError at `where`, and add `where` to a FormatError."""
    try:
        yield
    except FormatError as error:
        raise error.within(where) from error
    except OverflowError as error:
        raise FormatError("limit", where, str(error), "10") from error
    except ValueError as error:
        raise FormatError("index", where, str(error), "4") from error


# Tensors


def _tensor_json(entry: TensorEntry, prefix: tuple[str, str]) -> Json:
    blocks: list[Json] = []
    for row, block in entry.placed():
        document = block.to_json(BaseRows(base_name(entry.name, prefix), row))
        if len(entry.blocks) > 1:
            document["height"] = block.height
        blocks.append(document)
    spec = entry.spec
    tensor: dict[str, Json] = {"name": entry.name, "dtype": spec.dtype, "shape": list(spec.shape), "blocks": blocks}
    return tensor | ({"split": entry.split} if entry.split != 1 else {})


def _parse_tensors(fields: Fields, prefix: tuple[str, str]) -> Iterator[TensorEntry]:
    documents = fields.take("tensors", list)
    if len(documents) > MAX_TENSORS:
        raise OverflowError(f"expected at most {MAX_TENSORS} tensors, got {len(documents)}")
    blocks = 0
    for document in documents:
        tensor = Fields(document, "a tensor")
        # Interned, since packs of one base have the same names.
        name = sys.intern(tensor.take("name", str))
        with _located(name):
            entry = _parse_tensor(tensor, name, prefix)
        # Limits are checked on the way (section 10).
        blocks += len(entry.blocks)
        if blocks > MAX_BLOCKS:
            raise OverflowError(f"expected at most {MAX_BLOCKS} blocks, got more")
        yield entry


def _parse_tensor(fields: Fields, name: str, prefix: tuple[str, str]) -> TensorEntry:
    dtype, shape = fields.take("dtype", str), tuple(fields.take_list("shape", int))
    split, documents = fields.take("split", int, 1), fields.take_list("blocks", dict)
    fields.done("4.2")
    _check_size(shape)
    spec = _spec(dtype, shape)
    rows = spec.matrix(split)[0]
    blocks: list[Block] = []
    row = 0
    for document in documents:
        block = Fields(document, "a block")
        # The height of an only block is the tensor's (section 4.3).
        if len(documents) == 1 and "height" in block:
            raise ValueError("expected no height for an only block")
        height = rows if len(documents) == 1 else block.take("height", int)
        if height < 0:
            raise ValueError(f"expected a height of at least 1, got {height}")
        # The default base of a block: the tensor's own name after `prefix`, the same rows (section 4.4).
        own = _base_rows(sys.intern(base_name(name, prefix)), row)
        blocks.append(parse_block(block, height, own))
        block.done("4.3")
        row += height
    return TensorEntry(name, spec, tuple(blocks), split)


# Packs of one base have the same specs and base rows, which a hundred of them in memory share.
_spec = lru_cache(4096)(TensorSpec)
_base_rows = lru_cache(4096)(BaseRows)


def _check_size(shape: tuple[int, ...]) -> None:
    # Dimensions of 0 are not counted (section 10).
    elements = 1
    for extent in shape:
        elements *= max(extent, 1)
    # Too many dimensions are refused by TensorSpec, for another reason (rule T1).
    if len(shape) <= MAX_DIMENSIONS and elements > MAX_ELEMENTS:
        raise OverflowError(f"expected at most 2**48 elements, got {list(shape)}")


# Prefix, metadata, ties


def _parse_prefix(fields: Fields) -> tuple[str, str]:
    if "prefix" not in fields:
        return ("", "")
    prefix = fields.take_list("prefix", str)
    if len(prefix) != 2 or prefix[0] == prefix[1]:
        raise ValueError(f"expected two different strings for 'prefix', got {prefix!r:.60}")
    return (prefix[0], prefix[1])


def _parse_metadata(fields: Fields) -> dict[str, str]:
    metadata = fields.take("metadata", dict, {})
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("expected strings in the metadata")
    return metadata


def _check_ties(index: Index) -> None:
    """Check that each tie names a tensor of equal dtype and shape that is no tie (rule B4)."""
    entries = {entry.name: entry for entry in index.tensors}
    for entry in index.tensors:
        if entry.tied_to is None:
            continue
        target = entries.get(entry.tied_to)
        if target is None or target.spec != entry.spec or target.tied_to is not None:
            raise ValueError(f"expected {entry.name} tied to a {entry.spec} that is no tie, got {entry.tied_to!r:.60}")
