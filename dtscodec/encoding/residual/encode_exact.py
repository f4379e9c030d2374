"""Checkpoint -> pack that decodes to it bit for bit; a residual layer is added to a pack, or stripped from it."""

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import replace
from itertools import islice
from pathlib import Path

from dtscodec.checkpoints.base import Base, as_base
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.open import as_checkpoint, weight_paths
from dtscodec.encoding.config import DEFAULT_SIZE, BaseOnly, Best, EncodeConfig
from dtscodec.encoding.encode_front import encode_front
from dtscodec.encoding.journal import Journal
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.encoding.residual.layer_builder import write_exact
from dtscodec.encoding.targets import Size
from dtscodec.errors import NAME_BASE, BaseMismatchError, ConfigError, EncodeError, Remedy
from dtscodec.files.spool import PIECE_BYTES
from dtscodec.packs.pack import Pack, PackSource, as_pack
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.open_file import Access, new_file, staging_folder_for
from dtscodec.storage.paths import as_output_path, work_folder
from dtscodec.storage.staging import staging_folder

FACTORS = 2, 4, 8
"""Sizes of codes that are tried beside the default, as multiples of it."""
REPORTED_TRIALS = 2
"""Sizes of codes whose progress is reported."""


def exact_passes(config: EncodeConfig) -> int:
    """Return the number of passes over all tensors that report progress; see `dtscodec.encoding.encode.passes`."""
    # A pass for the residual layer of each trial. Of a search, the first two report.
    return sum(own.passes + 1 for own in islice(_fronts(config), REPORTED_TRIALS))


def encode_exact(
    base: "Source | Base",
    fine_tune: "Source | Checkpoint",
    out: str | Path,
    config: EncodeConfig,
    *,
    task: str | None = None,
    force: bool = False,
    progress: ProgressCallback = no_progress,
    executor: Executor | None = None,
    journal: Journal | None = None,
) -> EncodeReport:
    """Write a pack that decodes to a fine-tune bit for bit; arguments, report and errors are those of `encode`.

    The size of the codes is the target's. Without one it is what makes the whole pack smallest: none, or the default
    size, doubled for as long as that helps. `BaseOnly` has no codes and is the fastest.
    """
    start = time.perf_counter()
    out = as_output_path(out)
    with (
        staging_folder_for(out, base, fine_tune) as staging,
        as_base(base, Access(staging, whole=True), config.dequantize_base) as opened,
        as_checkpoint(fine_tune, Access(staging, whole=True)) as fine,
        staging_folder(work_folder(out)) as folder,
        new_file(out, force, weight_paths(out, fine, opened.checkpoint)) as file,
    ):
        best: EncodeReport | None = None
        trials: dict[str, int] = {}
        fronts = list(_fronts(config))
        for number, own in enumerate(fronts):
            front = folder / f"{number}.safetensors"
            advance = progress if number < REPORTED_TRIALS else no_progress
            results = journal if len(fronts) == 1 else None
            try:
                report = encode_front(
                    opened, fine, front, own, task=task, progress=advance, executor=executor, journal=results
                )
            except EncodeError:
                # What cannot be coded can still be exact; but settings that were asked for are kept.
                if best is None:
                    raise
                break
            whole = add_residual(front, opened, fine, front.with_suffix(".exact"), progress=advance)
            trials[_name(own)] = whole.pack_bytes
            if best is not None and whole.pack_bytes >= best.pack_bytes:
                break
            best = report.with_residual(whole)
        assert best is not None
        assert best.residual is not None
        with best.path.open("rb") as found:
            shutil.copyfileobj(found, file, PIECE_BYTES)
        seconds = time.perf_counter() - start
        return replace(best, path=out, seconds=seconds, residual=replace(best.residual, trials=trials))


def _fronts(config: EncodeConfig) -> Iterator[EncodeConfig]:
    """Yield the settings of the codes to try, in order, for as long as packs become smaller."""
    own = config.without_residual()
    if config.target is not None or not isinstance(config.preset, Best):
        yield own
        return
    yield replace(own, preset=BaseOnly())
    yield own
    for factor in FACTORS:
        yield replace(own, target=Size(factor * DEFAULT_SIZE.amount, DEFAULT_SIZE.unit))


def _name(config: EncodeConfig) -> str:
    return "no codes" if isinstance(config.preset, BaseOnly) else str(config.target or "default")


def add_residual(
    pack: PackSource,
    base: "Source | Base",
    fine_tune: "Source | Checkpoint",
    out: str | Path,
    *,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> EncodeReport:
    """Write a pack with a residual layer, from one without that was made of the same fine-tune; `strip` is the inverse.

    Parameters
    ----------
    pack : path, bytes or Pack
        The pack, for instance one that was fitted to samples.
    base : path, mapping of tensors, or Base
        The base that it was made against.
    fine_tune : path, mapping of tensors, or Checkpoint
        The fine-tune.
    out : path
        The new pack, local or remote.
    force : bool
        Replace a file that exists.
    progress : callable
        Called with the bytes of each tensor.

    Raises
    ------
    ConfigError
        The pack has a residual layer already, or the fine-tune other tensors than the pack.
    CheckpointError, BaseMismatchError, FormatError, OutputError
        An input cannot be read, or the output not be written.
    """
    start = time.perf_counter()
    out = as_output_path(out)
    with (
        as_pack(pack, whole=True) as opened_pack,
        staging_folder_for(out, base, fine_tune) as staging,
        as_base(base, Access(staging, whole=True), opened_pack.summary.dequantized_base) as opened,
        as_checkpoint(fine_tune, Access(staging, whole=True)) as fine,
        new_file(out, force, [*weight_paths(out, fine, opened.checkpoint), *_paths(opened_pack)]) as file,
    ):
        _check(opened_pack, opened, fine)
        pack_id, residual = write_exact(opened_pack.reader, opened, fine, file, work_folder(out), progress)
        return EncodeReport(
            path=out,
            pack_id=pack_id.hex(),
            tensors=len(fine.specs),
            fine_bytes=sum(spec.nbytes for spec in fine.specs.values()),
            pack_bytes=file.seek(0, os.SEEK_END),
            seconds=time.perf_counter() - start,
            relative_error=0.0,
            left_out=0.0,
            residual=residual,
        )


def strip(pack: PackSource, out: str | Path, *, force: bool = False) -> str:
    """Write a pack without its residual layer, and return the pack id; the inverse of `add_residual`.

    The result is, byte for byte, the pack that was made before the layer was added.

    Parameters
    ----------
    pack : path, bytes or Pack
        A pack with a residual layer, local or remote. Only its front is read.
    out : path
        The new pack, local or remote.
    force : bool
        Replace a file that exists.

    Raises
    ------
    ConfigError
        The pack has no residual layer.
    FormatError, OutputError
        The pack is damaged, or the output cannot be written.
    """
    out = as_output_path(out)
    with as_pack(pack, front=True) as opened:
        if opened.summary.content is None:
            raise ConfigError(f"{opened.path or 'pack'}: expected a pack with a residual layer, got one without")
        with new_file(out, force, _paths(opened)) as file:
            return opened.reader.write_front(file).hex()


def _paths(pack: Pack) -> list[Path]:
    return [pack.path] if pack.path is not None else []


def _check(pack: Pack, base: Base, fine: Checkpoint) -> None:
    """Check that a residual layer can be added: a pack without one, of this fine-tune and this base."""
    where = str(pack.path or "pack")
    if pack.summary.content is not None:
        raise ConfigError(
            f"{where}: expected a pack without a residual layer, got one with it", Remedy("strip it first")
        )
    ours = {entry.name: entry.spec for entry in pack.index.tensors}
    if ours != dict(fine.specs):
        odd = min(ours.items() ^ fine.specs.items())[0]
        raise ConfigError(f"{where}: expected a pack of {fine.location}, got other tensors, such as {odd!r}")
    for entry in pack.index.tensors:
        entry.check_base(base.specs, base.location)
    if pack.summary.base is not None:
        found = base.digest(pack.index.base_names()).hex()
        if found != pack.summary.base.digest:
            detail = f"expected the digest {pack.summary.base.digest}, got {found}"
            raise BaseMismatchError("base-digest", base.location, detail, "7", NAME_BASE)
