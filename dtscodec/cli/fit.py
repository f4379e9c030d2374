"""``dtscodec fit``: pack + samples -> a pack fitted to its fine-tune's outputs."""

import argparse
from dataclasses import asdict

from dtscodec.calibration.fit_settings import STEPS
from dtscodec.cli import arguments, console
from dtscodec.cli.console import progress_bar
from dtscodec.cli.names import task_name
from dtscodec.cli.result_lines import fit_line
from dtscodec.cli.resume import journal_path


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = (
        "Adjust the levels, scales, codes, biases and norms of a pack until the decoded model's predictions and hidden "
        "states on samples are near the fine-tune's. The size of the pack does not change. `encode --calibration` "
        "encodes and fits in one go."
    )
    parser.epilog = (
        "SAMPLES is a file of texts or a folder of images, as for `dtscodec compare --samples`; 64 are enough, "
        "without labels. Needs pip install 'dtscodec[transformers]', for images 'dtscodec[images]'."
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
    parser.add_argument("--no-codes", action="store_true", help="leave the codes of matrices as they are")
    parser.add_argument("--no-elements", action="store_true", help="leave biases and norms as they are")
    parser.add_argument(
        "--bias-correction",
        action="store_true",
        help="before the fit, correct biases so that each layer's mean output matches the fine-tune's",
    )
    parser.add_argument(
        "--model", metavar="DIR", help="directory of configuration, and tokenizer or image processor (default: FT)"
    )
    parser.add_argument("--device", default="cpu", help="device that the models run on, e.g. cuda (default: cpu)")
    arguments.add_offload(parser)
    arguments.add_force(parser)
    arguments.add_json(parser)
    parser.set_defaults(run=run, misused=parser.error)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec.calibration.fit import fit
    from dtscodec.storage.paths import as_output_path

    if not options.steps and not options.bias_correction:
        options.misused("--steps 0 needs --bias-correction")
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
            codes=not options.no_codes,
            elements=not options.no_elements,
            bias_correction=options.bias_correction,
            device=options.device,
            offload=options.offload,
            force=options.force,
            checkpoint=f"{journal_path(as_output_path(out), is_directory=False)}.fit",
            progress=progress,
        )
    if options.json:
        console.print_json(asdict(report) | {"path": str(report.path)})
        return
    remedy = "more --steps may help" if options.steps else "--steps may help"
    console.print_lines(fit_line(task_name(options.pack), report, options.samples, remedy))
