"""The base of a family, merged from its fine-tunes: packs need no pre-trained model (DTS-D, arXiv 2512.01461)."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from dtscodec.activations.gram_file import GramFile
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.merged_base import MADE_OF
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.encoding.encoded_tensor import encode_exactly, encode_tie
from dtscodec.encoding.journal import journal_key
from dtscodec.encoding.pack_assembler import PackAssembler, PackMetadata
from dtscodec.encoding.pack_report import PackReport
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.naming import utf8
from dtscodec.format.summary import Summary
from dtscodec.format.weight_files import DEFAULT_STEM
from dtscodec.merging.distances import Distances
from dtscodec.merging.merge import MergeReport, auxiliary_file_data, report_of
from dtscodec.merging.merger import GramSource, Merger, open_merger
from dtscodec.merging.methods.method import MergeMethod
from dtscodec.packs.directory_index import DISTANCES
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.open_file import Access, check_new, new_file, staging_folder_for
from dtscodec.version import __version__

BASE_NAME = "base.safetensors"
"""The base's name in its directory."""


def make_base(
    directory: Path,
    fine_tunes: Mapping[str, Source],
    method: MergeMethod,
    pretrained: "Source | None" = None,
    *,
    raw: Sequence[str] = (),
    grams: Sequence[GramSource] = (),
    plain: bool = False,
    files: bool = True,
    force: bool = False,
    device: str = "cpu",
    dequantize_base: bool = False,
    added: list[Path] | None = None,
    progress: ProgressCallback = no_progress,
) -> MergeReport:
    """Merge fine-tunes into the base of a directory.

    Auxiliary files that all fine-tunes have in common are written into the directory, so that packs only name them.

    Parameters
    ----------
    directory : Path
        An existing directory.
    fine_tunes : mapping
        Paths, mappings of tensors or checkpoints, by task.
    method : MergeMethod
        How they are merged.
    pretrained : path or mapping of tensors, optional
        The pre-trained base of the fine-tunes.
    raw : sequence of str
        Patterns of names of tensors to leave out.
    grams : sequence of paths, mappings or GramFile
        Gram matrices of the layers' inputs, one per fine-tune.
    plain : bool
        Store a plain checkpoint, not a pack of exact tensors.
    files : bool
        Write auxiliary files.
    force : bool
        Replace files that exist.
    device : str
        Device to decompose matrices on.
    dequantize_base : bool
        Read the weights of a quantized pre-trained base dequantized.
    added : list of Path, optional
        Files that did not exist are appended before they are written.
    progress : callable
        Called with the bytes of fine-tunes that have been read.

    Raises
    ------
    DtsError
        As for `dtscodec.merge`.
    """
    out = directory / BASE_NAME
    start = time.perf_counter()
    sources = list(fine_tunes.values())
    with open_merger(
        *(sources, out, method, pretrained),
        raw=raw,
        grams=grams,
        device=device,
        dequantize_base=dequantize_base,
        progress=progress,
    ) as merger:
        # Auxiliary files that all have in common are stored once, beside the base.
        shared = _shared_files(merger) if files else {}
        paths = [out, *(directory / name for name in shared)]
        # All outputs are checked before the first is written.
        for path in paths:
            check_new(path, force)
        if added is not None:
            added += [path for path in paths if not path.exists()]
        # Each tensor is merged when it is written.
        _write_base(out, merger, list(fine_tunes), plain, force)
        for name, data in shared.items():
            with new_file(directory / name, force) as file:
                file.write(data)
        return report_of(merger, out, time.perf_counter() - start)


def _write_base(out: Path, merger: Merger, tasks: list[str], plain: bool, force: bool) -> None:
    metadata = merger.metadata | {MADE_OF: json.dumps(tasks)}
    specs, ties, paths = merger.inputs.specs, merger.inputs.ties, list(merger.paths(out))
    if plain:
        write_checkpoint(out, specs, merger.read, metadata=metadata, ties=ties, force=force, inputs=paths)
        return
    made_by, first = merger.method.describe(), merger.inputs.fine_tunes[0]
    write_base_pack(
        *(out, specs, merger.read),
        metadata=metadata,
        ties=ties,
        made_by=made_by,
        stem=first.stem,
        folders=first.folders,
        force=force,
        inputs=paths,
    )


def _shared_files(merger: Merger) -> dict[str, bytes]:
    """Return the auxiliary files that all fine-tunes have in common at the top of their directories, by name."""
    first, *others = [auxiliary_file_data(fine) for fine in merger.inputs.fine_tunes]
    return {
        name: data
        for name, data in first.items()
        if "/" not in name and all(other.get(name) == data for other in others)
    }


def key_of_base(
    out: Path,
    fine_tunes: Mapping[str, Source],
    method: MergeMethod,
    pretrained: "Source | None" = None,
    *,
    raw: Sequence[str] = (),
    grams: Sequence[Source] = (),
    plain: bool = False,
    dequantize_base: bool = False,
) -> bytes:
    """Return the digest of all inputs and settings of a base, for `Journal.begin`.

    Parameters
    ----------
    out : Path
        The base's file.
    fine_tunes, method, pretrained, raw, grams, plain, dequantize_base
        As for `make_base`.
    """
    with ExitStack() as stack:
        staging = stack.enter_context(staging_folder_for(out, pretrained, *fine_tunes.values()))
        sources = [*fine_tunes.values(), *([] if pretrained is None else [pretrained])]
        opened = [stack.enter_context(open_checkpoint(source, Access(staging))) for source in sources]
        digests = [stack.enter_context(GramFile(source)).digest() for source in grams]
        # Gram matrices count by content, wherever the file is.
        settings = method.describe(), list(fine_tunes), pretrained is None, list(raw), digests, plain, dequantize_base
        return journal_key(opened, *settings)


def figures_of(distances: Sequence[Distances], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return distances by task, as in `dtscodec.json`.

    Parameters
    ----------
    distances : sequence of Distances
        One per fine-tune.
    names : sequence of str
        The tasks, in the same order.
    """
    result = {}
    for name, found in zip(names, distances, strict=True):
        values = (found.merged, found.average, found.pretrained)
        result[name] = {key: value for key, value in zip(DISTANCES, values, strict=True) if value is not None}
    return result


def write_base_pack(
    out: Path,
    specs: Mapping[str, TensorSpec],
    read: Callable[[str], Bytes],
    *,
    metadata: Mapping[str, str],
    ties: Mapping[str, str],
    made_by: str,
    stem: str = DEFAULT_STEM,
    folders: Sequence[str] = (),
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
    stem, folders
        How a directory of the checkpoint is laid out; see `dtscodec.format.index.Index`.
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
        # Names of a pack ascend by their UTF-8 bytes.
        for name in sorted(specs, key=utf8):
            spec = specs[name]
            if name in ties:
                assembler.add(encode_tie(name, spec, ties[name]))
            else:
                assembler.add(encode_exactly(StoredTensor(name, spec, read(name))))
        summary = Summary(tensors=len(specs), encoder=f"dtscodec {__version__} base: {made_by}")
        layout = PackMetadata(summary, metadata=metadata, stem=stem, folders=folders)
        return assembler.finish(layout).extended(PackReport)
