"""``dtscodec family``: fine-tunes -> a directory with the base merged from them, and a pack of each."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dtscodec.cli import arguments, console, encode, encode_options, merge, merge_options
from dtscodec.cli.names import name_fine_tunes
from dtscodec.cli.pack_encoder import PackEncoder
from dtscodec.cli.resume import journal_path, open_journal

if TYPE_CHECKING:
    from dtscodec.merging.merge import MergeReport

EPILOG = """\
DIR gets base.safetensors, which decode finds, packs/NAME.safetensors for every fine-tune, and dtscodec.json, which
lists them. NAME is the file's or directory's, or what NAME=PATH says. All appear, or none.

Results are stored in DIR/dtscodec.part until all is done: if a run is interrupted, the same command resumes it.

examples:
  dtscodec family average movie/ tweets/ news/ -o three/
  dtscodec family ties movie/ tweets/ --base base/ --keep 0.1 -o two/ --calibration texts.jsonl
"""


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = "Merge fine-tunes into a base, and store each as a pack against it."
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    merge_options.add_method(parser)
    parser.add_argument("fine_tunes", metavar="FT", nargs="+", help="a fine-tune, or NAME=PATH")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the directory to write, on a local disk")
    parser.add_argument("--base", help="their pre-trained base; every method but average needs it. It is not stored")
    arguments.add_dequantize_base(parser)
    parser.add_argument("--plain-base", action="store_true", help="store the base as a plain checkpoint, uncompressed")
    encode_options.add_to(parser)
    encode.add_calibration(parser)
    merge_options.add_options(parser)
    arguments.add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec.merging.family import check_directory, encode_family
    from dtscodec.packs.directory import open_pack_directory

    fine_tunes, directory = name_fine_tunes(options.fine_tunes), Path(options.output)
    method, config = merge_options.method_of(options), encode_options.config_of(options)
    check_directory(options.output)
    encode.check_bound(options)
    if options.calibration:
        encode.check_calibration(options.calibration, fine_tunes.values())
    encoder = PackEncoder(options, fine_tunes)
    with (
        open_pack_directory(directory),
        open_journal(journal_path(directory, is_directory=True), options.no_resume) as journal,
        encode_options.open_executor(options) as executor,
    ):
        encode_family(
            fine_tunes,
            directory,
            method,
            options.base,
            config=config,
            grams=options.grams,
            plain_base=options.plain_base,
            force=options.force,
            executor=executor,
            journal=journal,
            progress=encode.bar_of(options),
            on_base=lambda report: None if options.json else _print_base(report, list(fine_tunes)),
            on_pack=encoder.print_report,
            encode_one=encoder,
        )
    encoder.print_end()


def _print_base(report: "MergeReport", tasks: list[str]) -> None:
    size = console.size(report.path.stat().st_size)
    line = f"{merge.describe(report, tasks)}; stored in {size}, {report.seconds:.1f} s: {report.path}"
    console.print_lines(line, *merge.merge_note_lines(report))
