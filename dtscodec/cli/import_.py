"""``dtscodec import``: LoRA adapter of PEFT -> pack."""

import argparse

from dtscodec.cli import arguments, console
from dtscodec.cli.console import progress_bar
from dtscodec.cli.names import task_name
from dtscodec.cli.result_lines import note_lines, report_facts
from dtscodec.messages import counted
from dtscodec.quantize.widths import ALL_BITS


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = (
        "Write the pack of a base with a LoRA adapter merged into it. The adapter's factors are encoded "
        "directly. Rank and alpha patterns, rsLoRA, embeddings, added tokens, convolutions, biases and modules_to_save "
        "are supported; DoRA and other kinds of adapter are refused."
    )
    parser.epilog = "For a pack of a given size, merge the adapter with PEFT and use dtscodec encode --size."
    parser.add_argument("adapter", metavar="ADAPTER", help="directory with adapter_config.json, local or on the Hub")
    arguments.add_base(parser, required=True)
    parser.add_argument("-o", "--output", metavar="PACK", help="default: ./NAME.dts.safetensors")
    parser.add_argument(
        "--bits", type=int, choices=ALL_BITS, default=16, help="width of the elements of singular vectors (default: 16)"
    )
    parser.add_argument(
        "--map",
        metavar="NAME=BASE_NAME",
        type=arguments.rename,
        action="append",
        default=[],
        help="a tensor that the base has under another name, such as a tied head; repeatable",
    )
    arguments.add_dequantize_base(parser)
    parser.add_argument("--no-files", action="store_true", help="leave out configuration and tokenizer files")
    arguments.add_json(parser)
    arguments.add_force(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import dtscodec

    name = task_name(options.adapter)
    with (
        dtscodec.Base(options.base, dequantize=options.dequantize_base) as base,
        progress_bar(name, sum(spec.nbytes for spec in base.specs.values())) as progress,
    ):
        report = dtscodec.import_adapter(
            options.adapter,
            base,
            options.output or f"{name}.dts.safetensors",
            bits=options.bits,
            renames=options.map,
            task=name,
            files=not options.no_files,
            force=options.force,
            progress=progress,
        )
    if options.json:
        console.print_json(report_facts(report))
        return
    sizes = f"{console.size(report.adapter_bytes)} -> {console.size(report.pack_bytes)}"
    count = len(report.exact)
    exact = f", {counted(count, 'tensor')} exact" if count else ""
    error = f"relative error {report.relative_error:.2g}"
    end = f"{report.seconds:.1f} s: {report.path}"
    line = f"{name}: {sizes}, {report.modules} layers, {error}{exact}, {end}"
    console.print_lines(line, *note_lines(name, report))
