"""Pack without a residual layer + fine-tune -> pack with one."""

from collections import Counter
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import IO

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.weight_headers import read_weight_headers
from dtscodec.encoding.pack_report import ResidualReport
from dtscodec.encoding.residual.choose_prediction import choose_prediction
from dtscodec.errors import EncodeError
from dtscodec.files.range_reader import Bytes
from dtscodec.files.spool import Spool
from dtscodec.format.blocks import Raw, Tie
from dtscodec.format.content_digest import base_digest, leaf
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.format.reader import PackReader
from dtscodec.format.residual.chunk import encode_chunk
from dtscodec.format.residual.exact_tensor import as_elements, chunk_ranges
from dtscodec.format.residual.layer_index import MAX_COLUMNS, LayerIndex, TensorResidual, WeightFile, layer_index_text
from dtscodec.format.residual.prediction import Prediction
from dtscodec.format.stored_files import compress_file
from dtscodec.progress import ProgressCallback, no_progress


def write_exact(
    front: PackReader,
    base: Base,
    fine: Checkpoint,
    file: IO[bytes],
    folder: Path,
    progress: ProgressCallback = no_progress,
) -> tuple[bytes, ResidualReport]:
    """Write a pack with a residual layer, from one without; return its id and a report on the layer.

    Parameters
    ----------
    front : PackReader
        A pack of the fine-tune, without a residual layer.
    base : Base
        The base that it was made against.
    fine : Checkpoint
        The fine-tune.
    file : binary file
        Open for writing, empty.
    folder : Path
        Directory for temporary files.
    progress : callable
        Called with the bytes of each tensor.

    Raises
    ------
    CheckpointError, OutputError
        A checkpoint cannot be read, or a file not be written.
    """
    chunks: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    tensors: dict[str, TensorResidual] = {}
    with closing(Spool(folder)) as spool:
        for entry in front.index.tensors:
            residual = _add_tensor(front, entry, base, fine, spool)
            if residual.chunks:
                kind = "delta" if residual.with_delta else "base"
                chunks[kind] += sum(residual.chunks)
                elements[kind] += entry.spec.elements
            tensors[entry.name] = residual
            progress(entry.spec.nbytes)
        weights = _add_weight_files(fine, spool)
        index = layer_index_text(LayerIndex(tuple(tensors.values()), weights))
        content = base_digest({name: bytes.fromhex(tensor.leaf) for name, tensor in tensors.items()}).hex()
        pack_id = front.write_layered(file, content, index, spool)
    report = ResidualReport(front.size, dict(chunks), dict(elements), sum(weight.stored for weight in weights))
    return pack_id, report


def _add_tensor(front: PackReader, entry: TensorEntry, base: Base, fine: Checkpoint, spool: Spool) -> TensorResidual:
    """Write the chunks of a tensor, and return its entry in the index of the layer."""
    data = fine.read(entry.name)
    own = leaf(entry.spec, data).hex()
    if all(isinstance(block, Raw | Tie) for block in entry.blocks):
        return TensorResidual(own)
    contents = list(front.contents(entry.name))

    @cache
    def read_base(name: str) -> tuple[TensorSpec, Bytes]:
        return base.specs[name], base.read(name)

    base_alone, with_delta = (Prediction(entry, contents, read_base, flag) for flag in (False, True))
    chosen = choose_prediction(data, base_alone, with_delta, entry.spec.dtype)
    if chosen.prediction.shape[1] > MAX_COLUMNS:
        raise EncodeError(f"{entry.name}: expected at most {MAX_COLUMNS} elements in a row, got {entry.spec}")
    elements = as_elements(data, chosen.prediction)
    lengths: list[int] = []
    for first, last in chunk_ranges(chosen.prediction):
        rows = elements[first:last]
        factors = chosen.factors(rows, first, last, entry.spec.dtype)
        chunk = encode_chunk(rows, chosen.prediction.rows(first, last, factors), chosen.prediction.kind, factors)
        spool.write(chunk)
        lengths.append(len(chunk))
    return TensorResidual(own, tuple(lengths) if any(lengths) else (), chosen.with_delta)


def _add_weight_files(fine: Checkpoint, spool: Spool) -> tuple[WeightFile, ...]:
    files = []
    for name, data in read_weight_headers(fine).items():
        compressed = compress_file(data)
        spool.write(compressed)
        files.append(WeightFile(name, len(data), len(compressed)))
    return tuple(files)
