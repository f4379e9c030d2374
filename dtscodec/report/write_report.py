"""Pack, or directory of packs -> report: one HTML page, or a picture of it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dtscodec.errors import ConfigError
from dtscodec.packs.pack import Pack, PackSource
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.report.browser import picture
from dtscodec.report.pack_statistics import directory_statistics, pack_statistics
from dtscodec.report.page import page
from dtscodec.report.statistics import DirectoryStatistics, PackStatistics
from dtscodec.storage.open_file import new_file
from dtscodec.storage.paths import as_output_path, is_remote

if TYPE_CHECKING:
    from dtscodec.checkpoints.base import Base
    from dtscodec.checkpoints.checkpoint import Source

REPORT_SUFFIXES = (".html", ".png")


def write_report(
    source: PackSource,
    out: str | os.PathLike[str],
    *,
    fine_tune: "Source | None" = None,
    base: "Source | Base | None" = None,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> PackStatistics | DirectoryStatistics:
    """Write a report on a pack, or on a directory of packs: a page without scripts, which needs no network.

    Parameters
    ----------
    source : path, bytes or Pack
        A pack, or a local directory of packs.
    out : path
        The page (``.html``), or a picture of it (``.png``), which needs Chromium or Chrome.
    fine_tune : path or mapping of tensors, optional
        The fine-tune of a pack, to measure errors; needs torch.
    base : path, mapping of tensors, or Base, optional
        The base of a pack, which shows which of the exact tensors are new. It is needed with `fine_tune`, unless the
        index of the pack's directory names it.
    force : bool
        Replace a file that exists.
    progress : callable
        Called with the bytes of each tensor that is compared.

    Returns
    -------
    PackStatistics or DirectoryStatistics
        The statistics that the page shows.

    Raises
    ------
    ConfigError
        The output has another ending, or a fine-tune or base is given with a directory.
    OutputError
        The output exists, or cannot be written.
    BackendError
        There is no browser to make a picture.
    DtsError
        As for `read_statistics`.
    """
    if Path(out).suffix not in REPORT_SUFFIXES:
        raise ConfigError(f"out: expected a name that ends in {' or '.join(REPORT_SUFFIXES)}, got {os.fspath(out)!r}")
    inputs = [] if isinstance(source, (bytes, Pack)) or is_remote(source) else [Path(source)]
    # The output first: if it exists, that is reported before the longer work.
    with new_file(as_output_path(out), force, inputs) as file:
        statistics = read_statistics(source, fine_tune=fine_tune, base=base, progress=progress)
        text = page(statistics)
        file.write(picture(text) if Path(out).suffix == ".png" else text.encode("utf-8"))
    return statistics


def read_statistics(
    source: PackSource,
    *,
    fine_tune: "Source | None" = None,
    base: "Source | Base | None" = None,
    progress: ProgressCallback = no_progress,
) -> PackStatistics | DirectoryStatistics:
    """Return the statistics that a report shows.

    Parameters
    ----------
    source : path, bytes or Pack
        A pack, or a local directory of packs.
    fine_tune : path or mapping of tensors, optional
        The fine-tune of a pack, to measure errors; needs torch.
    base : path, mapping of tensors, or Base, optional
        The base of a pack, which shows which of the exact tensors are new. It is needed with `fine_tune`, unless the
        index of the pack's directory names it.
    progress : callable
        Called with the bytes of each tensor that is compared.

    Raises
    ------
    ConfigError
        A fine-tune or base is given with a directory.
    DtsError
        As for `pack_statistics` and `directory_statistics`.
    """
    if isinstance(source, (bytes, Pack)) or is_remote(source) or not Path(source).is_dir():
        return pack_statistics(source, fine_tune, base, progress=progress)
    if fine_tune is not None or base is not None:
        raise ConfigError(f"{source}: expected one pack where a fine-tune or a base is given, got a directory")
    return directory_statistics(Path(source))
