"""``dtscodec calibrate``: model + texts -> Gram matrices of its layers' inputs."""

import argparse
from pathlib import Path

from dtscodec.cli import arguments, show
from dtscodec.cli.progress import progress_bar
from dtscodec.remote.place import as_output


def add_to(commands: "arguments.Subparsers") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "calibrate",
        help="collect what a model's layers are given, for encode --calibration",
        description="Run a fine-tune on texts, and write the Gram matrices of its linear layers' inputs: what `encode "
        "--calibration` and `merge esm --grams` take. Padding is left out; what several layers share is stored once.",
        epilog="TEXTS is as for `dtscodec compare --texts`; some 64 are enough. Needs pip install "
        "'dtscodec[transformers]'.",
    )
    parser.add_argument("fine_tune", metavar="FT", help="the fine-tune: a model directory, or its weights and --model")
    parser.add_argument("texts", metavar="TEXTS")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the file to write, *.safetensors")
    parser.add_argument("--model", metavar="DIR", help="directory of its configuration and tokenizer (default: FT)")
    parser.add_argument("--device", default="cpu", help="where the model runs, such as cuda (default: cpu)")
    arguments.add_force(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    from dtscodec.behaviour.texts import read_texts
    from dtscodec.calibration.collect import calibrate

    out = as_output(options.output)
    count = len(read_texts(Path(options.texts)))
    with progress_bar("calibrate", count, unit=" texts") as progress:
        found = calibrate(
            options.fine_tune,
            out,
            texts=options.texts,
            model=options.model,
            device=options.device,
            force=options.force,
            progress=progress,
        )
    layers, inputs = len(found.grams) + len(found.same), len(found.grams)
    show.lines(f"{count} texts: {layers} layers with {inputs} different inputs, {show.size(out.stat().st_size)}: {out}")
