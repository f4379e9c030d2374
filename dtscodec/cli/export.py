"""``dtscodec export``: pack -> LoRA adapter of PEFT."""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from dtscodec.cli import arguments, console
from dtscodec.cli.remedies import spell_option
from dtscodec.messages import listed

if TYPE_CHECKING:
    from dtscodec.adapters.export_adapter import ExportReport
    from dtscodec.adapters.export_plan import LeftOut

FACTOR_DTYPES = {"f16": "float16", "bf16": "bfloat16", "f32": "float32"}
MAX_NAMES = 3
"""Number of tensors that a line names."""


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = (
        "Write the delta of a pack as a LoRA adapter, with one rank and a scale of 1 for all layers. "
        "Norms, biases, new heads and tensors stored exactly or element by element cannot be expressed as a LoRA; they "
        "are listed with their share of the delta. Needs pip install 'dtscodec[transformers]'."
    )
    parser.epilog = (
        "An adapter holds factors in half precision and is ten times larger than its pack or more. The model that "
        "uses it is found by its configuration, which packs made from model directories include."
    )
    parser.add_argument("pack", metavar="PACK")
    parser.add_argument("--to", choices=["peft"], required=True, help="kind of adapter")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the directory to write")
    arguments.add_base(parser)
    parser.add_argument("--model", metavar="DIR", help="directory with the configuration of the model that uses it")
    parser.add_argument(
        "--rank", type=arguments.count, metavar="N", help="adapter rank (default: smallest for all components)"
    )
    parser.add_argument("--dtype", choices=FACTOR_DTYPES, default="f16", help="dtype of the factors (default: f16)")
    parser.add_argument(
        "--base-name", metavar="NAME", help="name of the base in the adapter (default: the recorded one)"
    )
    parser.add_argument(
        "--modules-to-save",
        action="store_true",
        help="store modules that a LoRA cannot change, such as new heads, as a whole (PEFT only)",
    )
    parser.add_argument("--strict", action="store_true", help="fail if any change would be left out")
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
        model=options.model,
        rank=options.rank,
        dtype=getattr(torch, FACTOR_DTYPES[options.dtype]),
        base_name_or_path=options.base_name,
        save_modules=options.modules_to_save,
        strict=options.strict,
        force=options.force,
    )
    if options.json:
        console.print_json(_document(report))
    else:
        console.print_lines(*_left_out(report.left_out), _summary(report))


def _document(report: "ExportReport") -> dict[str, Any]:
    values = {field.name: getattr(report, field.name) for field in fields(report)}
    left_out = [{"name": item.name, "why": item.why, "share": item.share} for item in report.left_out]
    return values | {"path": str(report.path), "left_out": left_out, "left_out_share": report.left_out_share}


def _summary(report: "ExportReport") -> str:
    parts = [
        f"{console.size(report.pack_bytes)} -> {console.size(report.adapter_bytes)}",
        f"{report.modules} layers of {report.model} at rank {report.rank}",
        *([f"{len(report.saved)} modules whole"] if report.saved else []),
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
        lines.append(f"left out  {share:>7}  {why}: {names}")
    return lines
