"""``dtscodec verify``: whether a pack is whole, and whether this is its base."""

import argparse
from typing import TYPE_CHECKING

from dtscodec.cli import arguments, console
from dtscodec.cli.progress import progress_bar

if TYPE_CHECKING:
    from dtscodec.packs.pack import Pack


def add_to(commands: "arguments.Subparsers") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "verify",
        help="check every byte of a pack, and its base",
        description="Check every byte of a pack, and with --base every base tensor that it uses.",
    )
    parser.add_argument("pack", metavar="PACK")
    arguments.add_base(parser)
    arguments.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec.packs.pack import Pack

    with Pack(options.pack, whole=True) as pack, progress_bar("verify", pack.size) as progress:
        for count in pack.reader.check_all():
            progress(count)
        if options.base:
            check_base(pack, options.base)
        facts = {
            "path": str(pack.path),
            "id": pack.id,
            "size": pack.size,
            "tensors": len(pack.keys()),
            "base_checked": bool(options.base and pack.summary.base),
        }
    if options.json:
        console.facts(facts)
        return
    base = ", base checked" if facts["base_checked"] else ""
    console.lines(f"{pack.path}: ok, {console.size(pack.size)}, {facts['tensors']} tensors{base}, id {pack.id}")


def check_base(pack: "Pack", source: str) -> None:
    """Check every base tensor that a pack uses, then the whole."""
    from dtscodec.decoding.decode import decode

    with decode(pack, source, whole=True) as decoded:
        decoded.check_base_tensors()
