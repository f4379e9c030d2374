"""``dtscodec export``: pack -> LoRA adapter of PEFT."""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from dtscodec.cli import arguments, console
from dtscodec.cli.remedies import spell_option
from dtscodec.cli.result_lines import behaviour_facts, behaviour_line
from dtscodec.messages import counted, listed

if TYPE_CHECKING:
    from dtscodec.adapters.exporting.export_report import ExportReport
    from dtscodec.adapters.exporting.left_out_changes import LeftOut

FACTOR_DTYPES = {"f16": "float16", "bf16": "bfloat16", "f32": "float32"}
MAX_NAMES = 3
"""Number of tensors that a line names."""


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = (
        "Write the delta of a pack as a LoRA adapter: each layer has its own rank, and all have a scale of 1. Heads of "
        "classifiers are stored as a whole. Norms, biases and tensors stored exactly or element by element cannot be "
        "expressed as a LoRA; they are listed with their share of the delta and their relative change. Needs "
        "pip install 'dtscodec[transformers]'."
    )
    parser.epilog = (
        "An adapter holds factors in half precision and is ten times larger than its pack or more. The model that "
        "uses it is found by its configuration, which packs made from model directories include."
    )
    parser.add_argument("pack", metavar="PACK")
    parser.add_argument(
        "--to", choices=["peft", "vllm"], required=True, help="program that loads it; what vLLM refuses is left out"
    )
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the directory to write")
    arguments.add_base(parser)
    parser.add_argument("--model", metavar="DIR", help="directory with the configuration of the model that uses it")
    parser.add_argument(
        "--rank", type=arguments.count, metavar="N", help="largest rank of a layer (default: all components)"
    )
    parser.add_argument(
        "--uniform-rank", action="store_true", help="pad all layers to one rank, for programs that need it (SGLang)"
    )
    parser.add_argument("--dtype", choices=FACTOR_DTYPES, default="f16", help="dtype of the factors (default: f16)")
    parser.add_argument(
        "--base-name", metavar="NAME", help="name of the base in the adapter (default: the recorded one)"
    )
    parser.add_argument(
        "--modules-to-save",
        action="store_true",
        help="store modules that a LoRA cannot change, such as norms, as a whole, and biases (PEFT only)",
    )
    parser.add_argument("--strict", action="store_true", help="fail if any change would be left out")
    parser.add_argument(
        "--samples", metavar="SAMPLES", help="texts or images to compare with the decoded model on, as for compare"
    )
    arguments.add_json(parser)
    arguments.add_force(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import torch

    import dtscodec

    report = dtscodec.export_adapter(
        options.pack,
        options.output,
        options.base,
        to=options.to,
        model=options.model,
        rank=options.rank,
        dtype=getattr(torch, FACTOR_DTYPES[options.dtype]),
        base_name_or_path=options.base_name,
        uniform_rank=options.uniform_rank,
        save_modules=options.modules_to_save,
        strict=options.strict,
        samples=options.samples,
        force=options.force,
    )
    if options.json:
        console.print_json(_document(report))
    else:
        console.print_lines(
            *_left_out(report.left_out), *_effect(report, options.samples), *_advice(report), _summary(report)
        )


def _document(report: "ExportReport") -> dict[str, Any]:
    values = {field.name: getattr(report, field.name) for field in fields(report)}
    left_out = [
        {"name": item.name, "why": item.why, "share": item.share, "relative_change": item.relative_change}
        for item in report.left_out
    ]
    shown = {"path": str(report.path), "ranks": dict(report.ranks), "rank": report.rank, "left_out": left_out}
    effect = behaviour_facts(report.effect) if report.effect else None
    return values | shown | {"left_out_share": report.left_out_share, "effect": effect}


def _summary(report: "ExportReport") -> str:
    least = min(report.ranks.values())
    ranks = f"rank {least}" if least == report.rank else f"ranks {least} to {report.rank}"
    parts = [
        f"{console.size(report.pack_bytes)} -> {console.size(report.adapter_bytes)}",
        f"{len(report.ranks)} layers of {report.model} at {ranks}",
        *([f"whole: {listed(report.saved, MAX_NAMES)}"] if report.saved else []),
        f"{100 * report.left_out_share:.2f} % of the pack's delta left out",
        *([f"{100 * report.cut_off:.2f} % lost to the rank"] if report.cut_off else []),
        f"vLLM: {'; '.join(report.vllm_problems) or f'--max-lora-rank {report.vllm_rank}'}",
    ]
    return f"{', '.join(parts)}: {report.path}"


def _left_out(items: "Sequence[LeftOut]") -> list[str]:
    """Return a line for each reason why tensors are left out, the largest share first."""
    groups: dict[str, list[LeftOut]] = defaultdict(list)
    for item in items:
        remedy = f" ({item.remedy.spelled(spell_option)})" if item.remedy else ""
        groups[item.why + remedy].append(item)
    lines = []
    for why, group in groups.items():
        # New tensors have no delta, and so no share of it.
        shares = [item.share for item in group if item.share is not None]
        share = f"{100 * sum(shares):.2f} %" if shares else "-"
        names = listed([item.name for item in group], MAX_NAMES)
        lines.append(f"left out  {share:>7}  {why}{_most_changed(group)}: {names}")
    return lines


def _most_changed(group: "Sequence[LeftOut]") -> str:
    changes = [item.relative_change for item in group if item.relative_change is not None]
    return f", changed by up to {100 * max(changes):.2g} % of its norm" if changes else ""


def _effect(report: "ExportReport", samples: str) -> list[str]:
    return [f"{behaviour_line(report.effect, samples)}, base + adapter against decoded"] if report.effect else []


def _advice(report: "ExportReport") -> list[str]:
    """Return lines of advice: on the effect of left-out tensors, and on merging tied layers."""
    lines = []
    if report.left_out and not report.effect:
        places = {item.name.rpartition(".")[0] for item in report.left_out}
        count = f"{counted(len(report.left_out), 'tensor')} of {counted(len(places), 'module')}"
        lines.append(
            f"outputs differ from the decoded model's: {count} left out, and their share does not measure the effect; "
            "measure it (--samples), or serve the decoded model"
        )
    if report.tied:
        lines.append(
            f"do not merge it with PEFT: {listed(report.tied, MAX_NAMES)} share a weight, to which merging adds the "
            "delta more than once; for merged weights, decode the pack"
        )
    return lines
