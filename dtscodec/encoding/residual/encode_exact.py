"""Checkpoint -> pack that decodes to it bit for bit; `dtscodec.decode` is the inverse."""

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from dtscodec.checkpoints.base import Base, as_base
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.open import as_checkpoint, weight_paths
from dtscodec.encoding.config import DEFAULT_SIZE, BaseOnly, Best, EncodeConfig
from dtscodec.encoding.encode import encode, passes
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.encoding.residual.layer_builder import LayerBytes, write_exact
from dtscodec.encoding.targets import Size
from dtscodec.errors import NAME_BASE, BaseMismatchError, ConfigError, EncodeError, Remedy
from dtscodec.files.spool import PIECE_BYTES
from dtscodec.packs.pack import Pack, PackSource, as_pack
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.storage.open_file import Access, new_file, staging_folder_for
from dtscodec.storage.paths import as_output_path, work_folder

ProgressOf: TypeAlias = Callable[[str, int], AbstractContextManager[ProgressCallback]]
"""Takes name and length of a step, and returns a context manager that yields a callback for progress in it."""

LARGEST_FACTOR = 8
"""The largest size that is tried is so many times the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactReport(EncodeReport):
    """The report on a pack with a residual layer. Errors and shares that are left out are those of its front.

    Parameters
    ----------
    front_bytes : int
        Bytes of the front: what a decoder without the residual layer reads.
    layer : LayerBytes
        What the residual layer stores.
    trials : dict of str to int
        Size of the pack in bytes for each size of its front that was tried.

    Other parameters are those of `EncodeReport`.
    """

    front_bytes: int
    layer: LayerBytes
    trials: dict[str, int] = field(default_factory=dict)


@contextmanager
def _no_bar(name: str, total: int) -> Iterator[ProgressCallback]:
    yield no_progress


def encode_exact(
    base: "Source | Base",
    fine_tune: "Source | Checkpoint",
    out: str | Path,
    config: EncodeConfig | None = None,
    *,
    task: str | None = None,
    force: bool = False,
    progress: ProgressOf = _no_bar,
    executor: Executor | None = None,
) -> ExactReport:
    """Write a pack that decodes to a fine-tune bit for bit: codes, and a residual layer after them.

    Parameters
    ----------
    base, fine_tune, out, task, force, executor
        As for `dtscodec.encode`.
    config : EncodeConfig, optional
        Settings of the codes. Without a target, the size of the codes is the one that makes the whole pack smallest:
        none, or the default size, doubled for as long as that helps. `BaseOnly()` is the fastest: no codes.
    progress : callable
        Called with name and length in bytes of each step.

    Returns
    -------
    ExactReport
        Sizes and time.

    Raises
    ------
    CheckpointError, ConfigError, BaseMismatchError, EncodeError, BackendError, OutputError
        As for `dtscodec.encode`.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> base = {"w": torch.zeros(64, 64)}
    >>> fine = {"w": torch.rand(64, 64)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = dtscodec.encode_exact(base, fine, f"{folder}/task.safetensors").path
    ...     with dtscodec.decode(path, base) as state:
    ...         torch.equal(state["w"], fine["w"])
    True
    """
    start = time.perf_counter()
    config, out = config or EncodeConfig(), as_output_path(out)
    with (
        staging_folder_for(out, base, fine_tune) as staging,
        as_base(base, Access(staging, whole=True), config.dequantize_base) as opened,
        as_checkpoint(fine_tune, Access(staging, whole=True)) as fine,
        tempfile.TemporaryDirectory(dir=work_folder(out), prefix=".dtscodec-") as folder,
        new_file(out, force, weight_paths(out, fine, opened.checkpoint)) as file,
    ):
        total = sum(spec.nbytes for spec in fine.specs.values())
        best: ExactReport | None = None
        trials: dict[str, int] = {}
        for own in _configs(config):
            name = "no codes" if isinstance(own.preset, BaseOnly) else f"codes of {own.target or 'the default size'}"
            with progress(f"encode, {name}", (passes(own) + 1) * total) as advance:
                front = Path(folder) / f"{len(trials)}.safetensors"
                try:
                    report = encode(opened, fine, front, own, task=task, progress=advance, executor=executor)
                except EncodeError:
                    # What cannot be coded can still be exact; but a size that was asked for must be kept.
                    if best is None:
                        raise
                    break
                added = add_residual(front, opened, fine, front.with_suffix(".exact"), progress=advance)
            exact = replace(
                added, relative_error=report.relative_error, left_out=report.left_out, exact_bytes=report.exact_bytes
            )
            trials[name] = exact.pack_bytes
            if best is not None and exact.pack_bytes >= best.pack_bytes:
                break
            best = replace(exact, notes=report.notes)
        assert best is not None
        with best.path.open("rb") as found:
            while piece := found.read(PIECE_BYTES):
                file.write(piece)
        return replace(best, path=out, seconds=time.perf_counter() - start, trials=trials)


def _configs(config: EncodeConfig) -> Iterator[EncodeConfig]:
    """Yield the settings to try, for as long as packs become smaller."""
    if config.target is not None or not isinstance(config.preset, Best):
        yield config
        return
    yield replace(config, preset=BaseOnly())
    factor = 1
    while factor <= LARGEST_FACTOR:
        yield replace(config, target=Size(factor * DEFAULT_SIZE.amount, DEFAULT_SIZE.unit))
        factor *= 2


def add_residual(
    pack: PackSource,
    base: "Source | Base",
    fine_tune: "Source | Checkpoint",
    out: str | Path,
    *,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> ExactReport:
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
        pack_id, layer = write_exact(opened_pack.reader, opened, fine, file, work_folder(out), progress)
        specs = fine.specs.values()
        return ExactReport(
            path=out,
            pack_id=pack_id.hex(),
            tensors=len(fine.specs),
            fine_bytes=sum(spec.nbytes for spec in specs),
            pack_bytes=file.tell(),
            seconds=time.perf_counter() - start,
            relative_error=0.0,
            left_out=0.0,
            front_bytes=opened_pack.size,
            layer=layer,
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
    with as_pack(pack) as opened:
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
