"""``dtscodec fold``: a chain of exact packs -> one exact pack."""

import argparse

from dtscodec.cli import arguments, console
from dtscodec.cli.console import progress_bar
from dtscodec.cli.result_lines import pack_line, report_facts


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = (
        "Make one exact pack out of a chain: exact packs, each made against what the one before decodes to. The result "
        "decodes to the same, and needs the base only."
    )
    parser.add_argument("base", help="the base of the chain: file, index or directory")
    parser.add_argument("packs", metavar="PACK", nargs="+", help="the packs, from the first on the base to the last")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the pack to write")
    arguments.add_force(parser)
    arguments.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec import fold
    from dtscodec.checkpoints.open import open_checkpoint
    from dtscodec.encoding.config import EXACT
    from dtscodec.encoding.encode import passes

    chain = [options.base, *options.packs]
    with open_checkpoint(chain) as last:
        total = passes(EXACT) * sum(spec.nbytes for spec in last.specs.values())
    with progress_bar("fold", total) as progress:
        report = fold(chain, options.output, force=options.force, progress=progress)
    if options.json:
        console.print_json(report_facts(report))
    else:
        console.print_lines(pack_line(options.packs[-1], report))
