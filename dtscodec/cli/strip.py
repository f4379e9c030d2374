"""``dtscodec strip``: exact pack -> the same without its residual layer."""

import argparse

from dtscodec.cli import arguments, console


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = (
        "Write an exact pack without its residual layer: byte for byte the pack that encode writes without --exact. "
        "Of a remote pack only that part is read."
    )
    parser.add_argument("pack", metavar="PACK", help="the pack, local or remote")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the pack to write")
    arguments.add_force(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec import Pack, strip

    with Pack(options.pack, front=True) as pack:
        pack_id = strip(pack, options.output, force=options.force)
        front = pack.reader.front_bytes
        console.print_lines(f"{console.size(pack.size)} -> {console.size(front)}, id {pack_id}: {options.output}")
