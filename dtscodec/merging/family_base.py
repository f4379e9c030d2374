"""The base that the packs of a directory share, merged from their fine-tunes: DTS-D needs no pre-trained model."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from dtscodec.activations.gram_file import Grams
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.identity import MADE_OF
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.encoding.journal import key_of
from dtscodec.merging.base_pack import write_base_pack
from dtscodec.merging.distances import Distances
from dtscodec.merging.merge import MergeReport, auxiliary_files_of, report_of
from dtscodec.merging.merger import GramSource, Merger, open_merger
from dtscodec.merging.methods.method import MergeMethod, ProgressCallback
from dtscodec.packs.directory_index import DISTANCES
from dtscodec.storage.staging import staging_folder_for
from dtscodec.storage.upload import check_new, new_file

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
    progress: ProgressCallback = lambda size: None,
) -> tuple[MergeReport, list[Path]]:
    """Merge fine-tunes into the base of a directory.

    Small files that all fine-tunes have alike are written beside it, so that packs need only name them.

    Parameters
    ----------
    directory : Path
        It exists.
    fine_tunes : mapping
        By task.
    plain : bool
        Store a plain checkpoint, not a pack.

    Returns
    -------
    MergeReport
    list of Path
        What was made and had not been there.

    Raises
    ------
    DtsError
        As for `dtscodec.merge`. Nothing is left then.
    """
    out = directory / BASE_NAME
    start = time.perf_counter()
    sources = list(fine_tunes.values())
    made: list[Path] = []
    with open_merger(
        sources, out, method, pretrained, raw=raw, grams=grams, device=device, progress=progress
    ) as merger:
        shared = _shared_files(merger) if files else {}
        for path in [out, *(directory / name for name in shared)]:
            check_new(path, force)
            made += [] if path.exists() else [path]
        _write_base(out, merger, list(fine_tunes), plain, force)
        for name, data in shared.items():
            with new_file(directory / name, force) as file:
                file.write(data)
        return report_of(merger, out, time.perf_counter() - start), made


def _write_base(out: Path, merger: Merger, names: list[str], plain: bool, force: bool) -> None:
    metadata = merger.metadata | {MADE_OF: json.dumps(names)}
    tasks, inputs = merger.inputs, list(merger.paths(out))
    if plain:
        write_checkpoint(out, tasks.specs, merger.read, metadata=metadata, ties=tasks.ties, force=force, inputs=inputs)
        return
    write_base_pack(
        out,
        tasks.specs,
        merger.read,
        metadata=metadata,
        ties=tasks.ties,
        made_by=merger.method.describe(),
        force=force,
        inputs=inputs,
    )


def _shared_files(merger: Merger) -> dict[str, bytes]:
    """Small files, at the top of their directories, that all fine-tunes have alike."""
    first, *others = [auxiliary_files_of(fine) for fine in merger.inputs.fine_tunes]
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
) -> bytes:
    """Stands for all that a base depends on; arguments as for `make_base`. For `Journal.begin`."""
    with ExitStack() as stack:
        staging = stack.enter_context(staging_folder_for(out, pretrained, *fine_tunes.values()))
        sources = [*fine_tunes.values(), *([] if pretrained is None else [pretrained])]
        opened = [stack.enter_context(open_checkpoint(source, staging)) for source in sources]
        digests = [stack.enter_context(Grams(source)).digest() for source in grams]
        settings = method.describe(), list(fine_tunes), pretrained is None, list(raw), digests, plain
        return key_of(opened, *settings)


def figures_of(distances: Sequence[Distances], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Distances as `dtscodec.json` holds them, by task."""
    result = {}
    for name, found in zip(names, distances, strict=True):
        values = (found.merged, found.average, found.pretrained)
        result[name] = {key: value for key, value in zip(DISTANCES, values, strict=True) if value is not None}
    return result
