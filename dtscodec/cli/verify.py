"""``dtscodec verify``: check the digests of a pack and of its base."""

import argparse

from dtscodec.cli import arguments, console
from dtscodec.cli.console import progress_bar


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = (
        "Check every byte of a pack against its digests and, with --base, all that it uses of the base."
    )
    parser.add_argument("pack", metavar="PACK", help="the pack, local or remote")
    arguments.add_base(parser)
    arguments.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec.decoding.verify import verify
    from dtscodec.packs.pack import Pack

    with Pack(options.pack, whole=True) as pack, progress_bar("verify", pack.size) as progress:
        report = verify(pack, options.base, progress=progress)
    if options.json:
        console.print_json(
            {
                "path": report.path,
                "id": report.pack_id,
                "size": report.size,
                "tensors": report.tensors,
                "base_checked": report.is_base_checked,
                "content_checked": report.is_content_checked,
            }
        )
        return
    base = ", base checked" if report.is_base_checked else ""
    base += ", content checked" if report.is_content_checked else ""
    size = console.size(report.size)
    console.print_lines(f"{report.path}: ok, {size}, {report.tensors} tensors{base}, id {report.pack_id}")
