"""A base as a pack of exact tensors: fewer bytes, and the same base digest (spec section 14)."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.encoding.encoded_tensor import encode_exactly, encode_tie
from dtscodec.encoding.pack_assembler import PackAssembler, PackMetadata
from dtscodec.encoding.pack_report import PackReport
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.names import utf8
from dtscodec.format.summary import Summary
from dtscodec.version import __version__


def write_base_pack(
    out: Path,
    specs: Mapping[str, TensorSpec],
    read: Callable[[str], Bytes],
    *,
    metadata: Mapping[str, str],
    ties: Mapping[str, str],
    made_by: str,
    force: bool = False,
    inputs: Iterable[Path] = (),
) -> PackReport:
    """Write a base as a pack. The inverse is `open_checkpoint`, which reads the same specs and bytes.

    Parameters
    ----------
    out : Path
        A local file.
    specs : mapping
        Dtypes and shapes of all tensors.
    read : callable
        Returns the bytes of a tensor, uint8 [nbytes]; called once for each that is not tied.
    metadata : mapping
        The checkpoint's metadata.
    ties : mapping
        Tied tensors: name -> name of the tensor of equal spec and bytes.
    made_by : str
        Merge method and options, for the summary.
    force : bool
        Replace a file that exists.
    inputs : iterable of Path
        Files that are read, which must not be replaced.

    Raises
    ------
    OutputError
        It cannot be written, or exists.
    """
    with PackAssembler(out, force=force, inputs=inputs) as assembler:
        for name in sorted(specs, key=utf8):
            spec = specs[name]
            if name in ties:
                assembler.add(encode_tie(name, spec, ties[name]))
            else:
                assembler.add(encode_exactly(StoredTensor(name, spec, read(name))))
        summary = Summary(tensors=len(specs), encoder=f"dtscodec {__version__} base: {made_by}")
        return assembler.finish(PackMetadata(summary, metadata=metadata)).extended(PackReport)
