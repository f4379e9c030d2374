"""``dtscodec report``: a pack, or a directory of packs, as one page."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dtscodec.cli import arguments, console
from dtscodec.cli.progress import progress_bar

if TYPE_CHECKING:
    from dtscodec.report.facts import FolderFacts, PackFacts

ENDINGS = (".html", ".png")


def add_to(commands: "arguments.Subparsers") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "report",
        help="show a pack, or a directory of packs, on one page",
        description="Write one page that needs nothing else: where the bytes go, rank and bits for each layer, "
        "spectra, what is exact and why. With --fine-tune also the error of each layer.",
        epilog="OUT ends in .html, or in .png for a picture of the page, which needs a Chromium. --json prints the "
        "same facts, with or without OUT.",
    )
    parser.add_argument("pack", metavar="PACK|DIR")
    parser.add_argument("-o", "--output", metavar="OUT", help="the page (.html) or picture (.png) to write")
    parser.add_argument("--fine-tune", metavar="FT", help="the fine-tune, to measure errors")
    arguments.add_base(parser)
    arguments.add_force(parser)
    arguments.add_json(parser)
    parser.set_defaults(run=run, misused=parser.error)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec.storage.paths import as_output_path, is_remote
    from dtscodec.storage.upload import new_file

    if options.output is None and not options.json:
        options.misused("expected -o OUT, or --json, got neither")
    if options.output is None:
        _print(options, _gather(options))
        return
    if Path(options.output).suffix not in ENDINGS:
        options.misused(f"-o: expected a name that ends in {' or '.join(ENDINGS)}, got {options.output!r}")
    inputs = [] if is_remote(options.pack) else [Path(options.pack)]
    with new_file(as_output_path(options.output), options.force, inputs) as file:
        facts = _gather(options)
        file.write(_written(facts, options.output))
    _print(options, facts)


def _gather(options: argparse.Namespace) -> "PackFacts | FolderFacts":
    from dtscodec.report.gather import gather, gather_folder

    if Path(options.pack).is_dir():
        if options.fine_tune or options.base:
            options.misused("--fine-tune and --base are for one pack, got a directory")
        return gather_folder(Path(options.pack))
    with progress_bar("report", _work(options)) as progress:
        return gather(options.pack, options.fine_tune, options.base, progress=progress)


def _work(options: argparse.Namespace) -> int:
    """Bytes that are compared; without a fine-tune there is nothing to wait for."""
    from dtscodec.packs.pack import Pack

    with Pack(options.pack) as pack:
        return sum(entry.spec.nbytes for entry in pack.index.tensors) if options.fine_tune else 0


def _written(facts: "PackFacts | FolderFacts", output: str) -> bytes:
    from dtscodec.report.browser import picture
    from dtscodec.report.page import page

    text = page(facts)
    return picture(text) if output.endswith(".png") else text.encode("utf-8")


def _print(options: argparse.Namespace, facts: "PackFacts | FolderFacts") -> None:
    from dtscodec.report.facts import FolderFacts, document

    if options.json:
        console.facts(document(facts))
        return
    packs = [*facts.packs.values()] if isinstance(facts, FolderFacts) else [facts]
    count = f"{len(packs)} packs" if isinstance(facts, FolderFacts) else f"{len(packs[0].tensors)} tensors"
    title = facts.name if isinstance(facts, FolderFacts) else facts.title
    console.lines(f"{title}: {console.size(sum(pack.size for pack in packs))}, {count}: {options.output}")
