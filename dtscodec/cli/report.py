"""``dtscodec report``: a pack, or a directory of packs, as one page."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dtscodec.cli import arguments, console
from dtscodec.cli.console import progress_bar

if TYPE_CHECKING:
    from dtscodec.report.statistics import DirectoryStatistics, PackStatistics


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = (
        "Write a self-contained HTML page: bytes by kind and width, rank and bits of each layer, spectra, and the "
        "tensors that are stored exactly, with reasons. With --fine-tune, also the error of each layer."
    )
    parser.epilog = (
        "OUT ends in .html, or in .png for a picture of the page, which needs Chromium or Chrome. --json prints the "
        "same statistics, with or without OUT."
    )
    parser.add_argument("pack", metavar="PACK_OR_DIR", help="a pack, or a local directory of packs")
    parser.add_argument("-o", "--output", metavar="OUT", help="the page (.html) or picture (.png) to write")
    parser.add_argument(
        "--fine-tune", metavar="FT", help="the fine-tune that the pack was made from, to measure errors"
    )
    arguments.add_base(parser)
    arguments.add_force(parser)
    arguments.add_json(parser)
    parser.set_defaults(run=run, misused=parser.error)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec.report.write_report import REPORT_SUFFIXES, read_statistics, write_report

    if options.output is None and not options.json:
        options.misused("expected -o OUT, or --json, got neither")
    if options.output is not None and Path(options.output).suffix not in REPORT_SUFFIXES:
        options.misused(f"-o: expected a name that ends in {' or '.join(REPORT_SUFFIXES)}, got {options.output!r}")
    if Path(options.pack).is_dir() and (options.fine_tune or options.base):
        options.misused("--fine-tune and --base are for one pack, got a directory")
    with progress_bar("report", _compared_bytes(options)) as progress:
        inputs = {"fine_tune": options.fine_tune, "base": options.base, "progress": progress}
        if options.output is None:
            statistics = read_statistics(options.pack, **inputs)
        else:
            statistics = write_report(options.pack, options.output, force=options.force, **inputs)
    _print(options, statistics)


def _compared_bytes(options: argparse.Namespace) -> int:
    """Return the bytes of the tensors that are compared; none without a fine-tune."""
    from dtscodec.packs.pack import Pack

    if not options.fine_tune:
        return 0
    with Pack(options.pack) as pack:
        return sum(entry.spec.nbytes for entry in pack.index.tensors)


def _print(options: argparse.Namespace, statistics: "PackStatistics | DirectoryStatistics") -> None:
    from dtscodec.report.statistics import DirectoryStatistics, as_json

    if options.json:
        console.print_json(as_json(statistics))
        return
    packs = [*statistics.packs.values()] if isinstance(statistics, DirectoryStatistics) else [statistics]
    count = f"{len(packs)} packs" if isinstance(statistics, DirectoryStatistics) else f"{len(packs[0].tensors)} tensors"
    title = statistics.name if isinstance(statistics, DirectoryStatistics) else statistics.title
    console.print_lines(f"{title}: {console.size(sum(pack.size for pack in packs))}, {count}: {options.output}")
