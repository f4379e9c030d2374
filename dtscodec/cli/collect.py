"""``dtscodec collect``: model + samples -> Gram matrices of its layers' inputs."""

import argparse
from pathlib import Path

from dtscodec.cli import arguments, console
from dtscodec.cli.console import progress_bar
from dtscodec.storage.paths import as_output_path


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = (
        "Run a fine-tune on texts or images, and write the Gram matrices of its linear layers' inputs, "
        "which `merge esm --grams` and routing use. Padding is left out; layers that share an input are stored once."
    )
    parser.epilog = (
        "SAMPLES is a file of texts or a folder of images, as for `dtscodec compare --samples`; 64 are enough. "
        "Needs pip install 'dtscodec[transformers]', for images 'dtscodec[images]'."
    )
    parser.add_argument("fine_tune", metavar="FT", help="the fine-tune: a model directory, or its weights and --model")
    parser.add_argument("samples", metavar="SAMPLES", help="texts or images to run it on")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the file to write, *.safetensors")
    parser.add_argument(
        "--model", metavar="DIR", help="directory of configuration, and tokenizer or image processor (default: FT)"
    )
    parser.add_argument("--device", default="cpu", help="device that the model runs on, e.g. cuda (default: cpu)")
    arguments.add_force(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec.calibration.collect import collect
    from dtscodec.evaluation.samples import read_samples, sample_kind

    out = as_output_path(options.output)
    count, kind = len(read_samples(Path(options.samples))), sample_kind(options.samples)
    with progress_bar("collect", count, unit=f" {kind}") as progress:
        found = collect(
            options.fine_tune,
            out,
            samples=options.samples,
            model=options.model,
            device=options.device,
            force=options.force,
            progress=progress,
        )
    layers, inputs = len(found.grams) + len(found.same), len(found.grams)
    size = console.size(out.stat().st_size)
    console.print_lines(f"{count} {kind}: {layers} layers with {inputs} different inputs, {size}: {out}")
