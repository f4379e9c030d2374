"""Encoder options that `encode` and `family` share, and the config and executor that they ask for."""

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from dtscodec.cli import arguments
from dtscodec.cli.remedies import message

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from dtscodec import BaseOnly, Best, EncodeConfig, Paper


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--preset",
        choices=["best", "paper", "none"],
        default="best",
        help="encoder: best (default), which preserves behaviour best; paper, DTS as published; or none, no codes, "
        "which is the fastest with --exact",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="add a residual layer, so that the pack decodes to the fine-tune bit for bit; without a size, that of the "
        "codes is what makes the whole smallest",
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--size",
        dest="target",
        type=arguments.pack_size,
        help="largest pack file: share of the fine-tune (0.5%%), bytes (2MB) or bits per parameter (default: 0.08bpp)",
    )
    target.add_argument(
        "--rank",
        dest="target",
        type=arguments.rank,
        help="rank of every matrix: a number of components (16), or a share of the full rank (0.1)",
    )
    target.add_argument(
        "--error",
        dest="target",
        type=arguments.error,
        help="smallest pack with at most this relative error of the delta (0.6)",
    )
    parser.add_argument(
        "--levels",
        choices=["matrix", "vector"],
        help="of the preset paper: one code book per factor matrix (default), or per singular vector",
    )
    parser.add_argument(
        "--raw",
        metavar="GLOB",
        action="append",
        default=[],
        help="tensors to store exactly (paper: in addition to classifier* and score*); repeatable",
    )
    workers = parser.add_mutually_exclusive_group()
    workers.add_argument(
        "--workers",
        metavar="N",
        type=arguments.count,
        default=1,
        help="single-threaded processes that encode tensors; packs are identical for any number (default: 1)",
    )
    workers.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="scheduler of a Dask cluster; its workers encode tensors, and read the checkpoints at the same paths",
    )
    parser.add_argument("--device", default="cpu", help="device for large matrix products, such as cuda (default: cpu)")
    parser.add_argument(
        "--no-resume", action="store_true", help="start afresh: discard the results of an interrupted run"
    )
    parser.add_argument("--no-files", action="store_true", help="leave out configuration and tokenizer files")
    arguments.add_force(parser)


def open_executor(options: argparse.Namespace) -> "AbstractContextManager[Executor | None]":
    """Return a context manager for the executor that is asked for; None for this process."""
    from dtscodec.executors.dask_cluster import cluster
    from dtscodec.executors.processes import processes

    if options.dask:
        return cluster(options.dask)
    return processes(options.workers) if options.workers > 1 else nullcontext()


def config_of(options: argparse.Namespace, renames: tuple[tuple[str, str], ...] = ()) -> "EncodeConfig":
    """Return the settings. Settings that exclude each other end the process as wrong usage.

    Parameters
    ----------
    options : argparse.Namespace
        The options that `add_to` adds, and the command's `parser`.
    renames : tuple of (str, str)
        See `EncodeConfig`.
    """
    from dtscodec import EncodeConfig

    try:
        return EncodeConfig(
            options.target,
            _preset(options),
            raw=tuple(options.raw),
            renames=renames,
            files=not options.no_files,
            device=options.device,
            dequantize_base=getattr(options, "dequantize_base", False),
            exact=options.exact,
        )
    except ValueError as error:
        parser: argparse.ArgumentParser = options.parser
        parser.error(message(error))


def _preset(options: argparse.Namespace) -> "Best | Paper | BaseOnly":
    from dtscodec import BaseOnly, Best, Paper

    if options.preset == "paper":
        return Paper(options.levels or "matrix")
    if options.levels:
        options.parser.error("--levels is an option of the preset paper")
    if options.preset == "none" and not options.exact:
        options.parser.error("--preset none stores no changes: it needs --exact")
    return Best() if options.preset == "best" else BaseOnly()
