"""``dtscodec compare``: how close a pack is to its fine-tune."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtscodec.cli import arguments, console
from dtscodec.cli.console import progress_bar
from dtscodec.cli.result_lines import behaviour_facts, behaviour_line

if TYPE_CHECKING:
    from dtscodec import Comparison, Pack
    from dtscodec.decoding.compare import Closeness
    from dtscodec.evaluation.compare_behaviour import Behaviour


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = (
        "Decode a pack and compare it with its fine-tune: relative error and cosine of the deltas, the "
        "ratio of the deltas' norms, bits per parameter, bytes. The total is over coded tensors. With "
        "--samples also the predictions: KL of the decoded model's from the fine-tune's in nats, agreement (share of "
        "samples or tokens with equal predictions), and accuracy on labelled samples or perplexity. For sequence and "
        "image classification and causal language models."
    )
    parser.epilog = (
        'SAMPLES is a file of texts, UTF-8: *.jsonl with {"text": ..., "label": ...}, *.tsv with text, tab, '
        "label, or one text a line; or a folder of images, *.png, *.jpg, *.webp or *.bmp, or of folders of them named "
        "after their labels. Labels are optional. Needs pip install 'dtscodec[transformers]', for images "
        "'dtscodec[images]'."
    )
    parser.add_argument("pack", metavar="PACK")
    parser.add_argument("fine_tune", metavar="FT")
    arguments.add_base(parser)
    parser.add_argument("--samples", metavar="SAMPLES", help="texts or images to compare predictions on")
    parser.add_argument(
        "--model", metavar="DIR", help="directory of configuration, and tokenizer or image processor (default: FT)"
    )
    parser.add_argument("--batch-size", type=arguments.count, metavar="N", help="samples in a batch (default: 16)")
    arguments.add_json(parser)
    parser.set_defaults(run=run, misused=parser.error)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import dtscodec

    if not options.samples and (options.model or options.batch_size):
        options.misused("--model and --batch-size need --samples")
    with dtscodec.open(options.pack) as pack:
        # First, since errors in samples and model directories should be reported before the longer work.
        behaviour = _behaviour(pack, options) if options.samples else None
        total = sum(entry.spec.nbytes for entry in pack.index.tensors)
        with progress_bar("compare", total) as progress:
            comparison = dtscodec.compare(pack, options.fine_tune, options.base, progress=progress)
    if options.json:
        console.print_json(_facts(comparison) | ({"behaviour": behaviour_facts(behaviour)} if behaviour else {}))
    else:
        console.print_lines(*_table(comparison), *([behaviour_line(behaviour, options.samples)] if behaviour else []))


def _behaviour(pack: "Pack", options: argparse.Namespace) -> "Behaviour":
    from dtscodec import compare_behaviour
    from dtscodec.evaluation.samples import read_samples, sample_kind

    count = len(read_samples(Path(options.samples)))
    with progress_bar("behaviour", count, unit=f" {sample_kind(options.samples)}") as progress:
        return compare_behaviour(
            pack,
            options.fine_tune,
            options.base,
            samples=options.samples,
            model=options.model,
            batch_size=options.batch_size or 16,
            progress=progress,
        )


def _figures(closeness: "Closeness | None") -> dict[str, float | None]:
    if closeness is None:
        return {"relative_error": None, "cosine": None, "norm_ratio": None}
    return {
        "relative_error": closeness.relative_error,
        "cosine": closeness.cosine,
        "norm_ratio": closeness.norm_ratio,
    }


def _numbers(closeness: "Closeness | None") -> list[str]:
    return [console.number(value) for value in _figures(closeness).values()]


def _facts(comparison: "Comparison") -> dict[str, Any]:
    tensors = [
        {
            "name": tensor.size.name,
            "kind": tensor.size.kind,
            "exact": tensor.exact,
            **_figures(tensor.closeness),
            "bits_per_parameter": tensor.bits_per_parameter,
            "bytes": tensor.size.size,
        }
        for tensor in comparison.tensors
    ]
    return {
        **_figures(comparison.total),
        "bits_per_parameter": comparison.bits_per_parameter,
        "bytes": comparison.pack_bytes,
        "fine_tune_bytes": comparison.fine_bytes,
        "tensors": tensors,
    }


def _table(comparison: "Comparison") -> list[str]:
    rows = []
    for tensor in comparison.tensors:
        if tensor.exact or tensor.closeness is None:
            figures = ["exact" if tensor.exact else "differs"] * 3
        else:
            figures = _numbers(tensor.closeness)
        size = [f"{tensor.bits_per_parameter:.3f}", f"{tensor.size.size:,}"]
        rows.append([tensor.size.name, tensor.size.kind, *figures, *size])
    size = [f"{comparison.bits_per_parameter:.3f}", f"{comparison.pack_bytes:,}"]
    rows.append(["all", "", *_numbers(comparison.total), *size])
    return console.table(["tensor", "kind", "error", "cosine", "norm ratio", "bits/param", "bytes"], rows, left=2)
