"""``dtscodec fit``: pack + samples -> a pack fitted to its fine-tune's outputs."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dtscodec.cli import arguments, console
from dtscodec.cli.console import progress_bar
from dtscodec.cli.names import task_name
from dtscodec.encoding.config import STEPS

if TYPE_CHECKING:
    from dtscodec.calibration.fit import FitReport


def add_to(commands: "arguments.Subparsers") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "fit",
        help="fit a pack to its fine-tune's outputs on samples",
        description="Adjust the levels, scales, biases and norms of a pack until the decoded model's predictions and "
        "hidden states on samples are near the fine-tune's. The pack keeps its size. `encode --calibration` encodes "
        "and fits in one go.",
        epilog="SAMPLES is a file of texts or a folder of images, as for `dtscodec compare --samples`; 64 are enough, "
        "without labels. Needs pip install 'dtscodec[transformers]', for images 'dtscodec[images]'.",
    )
    parser.add_argument("pack", metavar="PACK")
    parser.add_argument("fine_tune", metavar="FT", help="the fine-tune: a model directory, or its weights and --model")
    parser.add_argument("--samples", metavar="SAMPLES", required=True, help="texts or images to fit to")
    arguments.add_base(parser)
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="the pack to write (default: ./NAME.fitted.dts.safetensors)"
    )
    parser.add_argument(
        "--steps",
        metavar="N",
        type=arguments.step_count,
        default=STEPS,
        help=f"gradient steps; 0 to correct biases only (default: {STEPS})",
    )
    parser.add_argument(
        "--no-elements", action="store_true", help="fit levels and scales only, not biases and norms one by one"
    )
    parser.add_argument(
        "--bias-correction",
        action="store_true",
        help="before the fit, correct biases so that each layer's mean output matches the fine-tune's",
    )
    parser.add_argument(
        "--model", metavar="DIR", help="directory of configuration, and tokenizer or image processor (default: FT)"
    )
    parser.add_argument("--device", default="cpu", help="device that the models run on, e.g. cuda (default: cpu)")
    arguments.add_force(parser)
    arguments.add_json(parser)
    parser.set_defaults(run=run, misused=parser.error)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec.calibration.fit import fit
    from dtscodec.evaluation.samples import sample_kind

    if not options.steps and not options.bias_correction:
        options.misused("--steps 0 leaves nothing to do without --bias-correction")
    out = options.output or f"{task_name(options.pack)}.fitted.dts.safetensors"
    with progress_bar("fit", options.steps, unit=" steps") as progress:
        report = fit(
            options.pack,
            options.fine_tune,
            out,
            options.base,
            samples=options.samples,
            model=options.model,
            steps=options.steps,
            elements=not options.no_elements,
            bias_correction=options.bias_correction,
            device=options.device,
            force=options.force,
            progress=progress,
        )
    if options.json:
        console.facts(asdict(report) | {"path": str(report.path)})
        return
    name, size = task_name(options.pack), console.size(report.pack_bytes)
    samples = f"{report.samples} {sample_kind(Path(options.samples))}"
    change = kl_change(report, "more --steps may help" if options.steps else "--steps may help")
    console.lines(
        f"{name}: {size}, {report.numbers:,} numbers fitted to {samples}, {change}, {report.seconds:.1f} s: {out}"
    )


def kl_change(report: "FitReport", remedy: str) -> str:
    """Return what a fit did to the KL in words.

    It may rise where hidden states come closer.
    """
    before, after = report.before.kl, report.after.kl
    rose = f" (it rose: {remedy})" if after > before else ""
    return f"KL on these {before:.2g} -> {after:.2g}{rose}"
