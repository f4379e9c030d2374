"""``dtscodec merge``: fine-tunes -> one checkpoint."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from dtscodec.cli import arguments, console, merge_options
from dtscodec.cli.console import progress_bar
from dtscodec.cli.names import task_name
from dtscodec.cli.remedies import spell_option
from dtscodec.cli.result_lines import note_facts
from dtscodec.messages import listed

if TYPE_CHECKING:
    from dtscodec.merging.merge import MergeReport

_NAMED = 6
"""Tensors and tasks that a line names at most."""


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = "Merge fine-tunes of one architecture into one plain checkpoint."
    parser.epilog = (
        "Tensors whose shapes differ, such as heads, are left out; integer tensors are copied from the first "
        "fine-tune. For packs against a merged base, see `dtscodec family`."
    )
    merge_options.add_method(parser)
    parser.add_argument("fine_tunes", metavar="FT", nargs="+", help="a fine-tune: file, index or directory")
    parser.add_argument("--base", help="their pre-trained base; every method but average needs it")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the checkpoint to write")
    parser.add_argument(
        "--raw", metavar="GLOB", action="append", default=[], help="names of further tensors to leave out; repeatable"
    )
    parser.add_argument("--device", default="cpu", help="device to decompose matrices on, such as cuda (default: cpu)")
    parser.add_argument(
        "--shard-size",
        type=arguments.byte_count,
        metavar="SIZE",
        default="5GB",
        help="largest file of tensors (default: 5GB)",
    )
    arguments.add_dequantize_base(parser)
    parser.add_argument("--no-files", action="store_true", help="leave out configuration and tokenizer files")
    arguments.add_json(parser)
    arguments.add_force(parser)
    merge_options.add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec.merging.merge import bytes_to_read, merge

    method = merge_options.method_of(options)
    with progress_bar("merge", bytes_to_read(method, options.fine_tunes)) as progress:
        report = merge(
            options.fine_tunes,
            options.output,
            method,
            options.base,
            raw=options.raw,
            grams=options.grams,
            files=not options.no_files,
            shard_bytes=options.shard_size,
            force=options.force,
            device=options.device,
            dequantize_base=options.dequantize_base,
            progress=progress,
        )
    names = _names(options.fine_tunes)
    if options.json:
        console.print_json(report_document(report, names))
        return
    console.print_lines(
        f"{describe(report, names)}, {report.seconds:.1f} s: {options.output}", *merge_note_lines(report)
    )


def _names(paths: Sequence[str]) -> list[str]:
    """Return short names of fine-tunes, or their paths if short names are not unique."""
    names = [task_name(path) for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def report_document(report: "MergeReport", names: Sequence[str]) -> dict[str, Any]:
    """Return the report of a merge for JSON."""
    distances = [
        {"fine_tune": name, **asdict(found), "ratio": found.ratio}
        for name, found in zip(names, report.distances, strict=True)
    ]
    facts = {field.name: getattr(report, field.name) for field in fields(report)}
    notes = [note_facts(note) for note in report.notes]
    return {**facts, "path": str(report.path), "distances": distances, "notes": notes}


def merge_note_lines(report: "MergeReport") -> list[str]:
    """Return a line for each note on a merge."""
    return [note.spelled(spell_option) for note in report.notes]


def describe(report: "MergeReport", names: Sequence[str]) -> str:
    """Return one line about a merge."""
    # Only the groups of tensors that occur are named.
    counts = {"merged": report.merged, "averaged, since the base lacks them": report.averaged, "copied": report.copied}
    if report.method == "average":
        counts = {"averaged": report.merged + report.averaged, "copied": report.copied}
    parts = [f"{len(found)} {what}" for what, found in counts.items() if found]
    if report.left_out:
        parts.append(f"left out: {listed(sorted(report.left_out), _NAMED)}")
    if report.without_grams:
        parts.append(f"SVD in place of Gram matrices for {len(report.without_grams)} matrices")
    ratios = [
        f"{name} {found.ratio:.2f}"
        for name, found in zip(names, report.distances, strict=True)
        if found.ratio is not None
    ]
    if ratios:
        parts.append(f"distances relative to task vectors: {listed(ratios, _NAMED)}")
    tensors = (
        f"{report.method} of {len(names)} fine-tune{'s' * (len(names) > 1)}: {console.size(report.size)}, tensors "
    )
    return tensors + "; ".join(parts)
