"""Writing a report about a pack, or a directory of packs: one HTML page, or a picture of it."""

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
    """Write one page about a pack, or a directory of packs, that needs no network and runs no script.

    Parameters
    ----------
    source : path, bytes or Pack
        A pack, or a local directory of packs.
    out : path
        The page (``.html``), or a picture of it (``.png``), which needs a Chromium.
    fine_tune, base, progress
        As for `read_statistics`.
    force : bool
        Replace a file that exists.

    Returns
    -------
    PackStatistics or DirectoryStatistics
        What the page shows.

    Raises
    ------
    ConfigError
        The output has another ending, or a fine-tune or base is given with a directory.
    OutputError
        The output exists, or cannot be written.
    BackendError
        A picture is asked for, and there is no browser.
    DtsError
        As for `read_statistics`.
    """
    if Path(out).suffix not in REPORT_SUFFIXES:
        raise ConfigError(f"out: expected a name that ends in {' or '.join(REPORT_SUFFIXES)}, got {os.fspath(out)!r}")
    inputs = [] if isinstance(source, (bytes, Pack)) or is_remote(source) else [Path(source)]
    with new_file(as_output_path(out), force, inputs) as file:
        facts = read_statistics(source, fine_tune=fine_tune, base=base, progress=progress)
        text = page(facts)
        file.write(picture(text) if Path(out).suffix == ".png" else text.encode("utf-8"))
    return facts


def read_statistics(
    source: PackSource,
    *,
    fine_tune: "Source | None" = None,
    base: "Source | Base | None" = None,
    progress: ProgressCallback = no_progress,
) -> PackStatistics | DirectoryStatistics:
    """Return what a report shows.

    Parameters
    ----------
    source : path, bytes or Pack
        A pack, or a local directory of packs.
    fine_tune : path or mapping of tensors, optional
        To measure errors of a pack; needs torch.
    base : path, mapping of tensors, or Base, optional
        Reveals which exact tensors are new. Needed with `fine_tune`, unless an index beside the pack names it.
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
