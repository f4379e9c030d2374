"""The base that the packs of a directory share, merged from their fine-tunes: DTS-D needs no pre-trained model."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dtscodec.checkpoints.checkpoint import Source, open_checkpoint
from dtscodec.checkpoints.identity import MADE_BY, MADE_OF
from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.codec.folder_index import DISTANCES
from dtscodec.errors import DtsError
from dtscodec.merging.base_pack import write_base_pack
from dtscodec.merging.merge import MergeReport, report_of, small_files
from dtscodec.merging.merger import GramSource, Merger, merging
from dtscodec.merging.methods import Method, describe
from dtscodec.merging.sizes import Distances, Sizes
from dtscodec.remote.upload import check_new, new_file

BASE_NAME = "base.safetensors"
"""The base's name in its directory."""


def make_base(
    directory: Path,
    fine_tunes: Mapping[str, Source],
    method: Method,
    pretrained: "Source | None" = None,
    *,
    raw: Sequence[str] = (),
    grams: Sequence[GramSource] = (),
    plain: bool = False,
    files: bool = True,
    force: bool = False,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda size: None,
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
    with merging(sources, out, method, pretrained, raw=raw, grams=grams, device=device, progress=progress) as merger:
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
    tasks, inputs = merger.tasks, list(merger.inputs(out))
    if plain:
        write_checkpoint(out, tasks.specs, merger.read, metadata=metadata, ties=tasks.ties, force=force, inputs=inputs)
        return
    write_base_pack(
        out,
        tasks.specs,
        merger.read,
        metadata=metadata,
        ties=tasks.ties,
        made_by=merger.text,
        force=force,
        inputs=inputs,
    )


def _shared_files(merger: Merger) -> dict[str, bytes]:
    """Small files, at the top of their directories, that all fine-tunes have alike."""
    first, *others = [small_files(fine) for fine in merger.tasks.fine_tunes]
    return {
        name: data
        for name, data in first.items()
        if "/" not in name and all(other.get(name) == data for other in others)
    }


def is_made_by(path: Path, method: Method, names: Sequence[str]) -> bool:
    """Whether a base is there that an earlier run merged from fine-tunes of these names by this method."""
    try:
        with open_checkpoint(path) as base:
            metadata = base.metadata
    except DtsError:
        return False
    return (metadata.get(MADE_BY), metadata.get(MADE_OF)) == (describe(method), json.dumps(list(names)))


def distances_from(
    path: Path, fine_tunes: Mapping[str, Source], pretrained: "Source | None" = None, raw: Sequence[str] = ()
) -> tuple[Distances, ...]:
    """How far fine-tunes are from the base that was made of them before, and from other candidates."""
    with (
        open_checkpoint(path) as base,
        merging(list(fine_tunes.values()), path, "average", pretrained, raw=raw) as found,
    ):
        tasks = found.tasks
        sizes = Sizes(len(tasks), pretrained is not None)
        for name in tasks.names:
            merged = tensor_from_bytes(base.read(name), base.specs[name])
            if pretrained is None and name not in tasks.copied:
                sizes.add(list(tasks.values(name)), merged)
            elif name in tasks.merged:
                sizes.add(tasks.moves(name).deltas, merged.double() - tasks.base_values(name).double())
    return sizes.distances()


def figures_of(distances: Sequence[Distances], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Distances as `dtscodec.json` holds them, by task."""
    result = {}
    for name, found in zip(names, distances, strict=True):
        values = (found.merged, found.average, found.pretrained)
        result[name] = {key: value for key, value in zip(DISTANCES, values, strict=True) if value is not None}
    return result
