"""``dtscodec decode``: pack + base -> checkpoint."""

import argparse
import time

from dtscodec.cli import arguments, console
from dtscodec.cli.console import progress_bar

DTYPE_NAMES = {"f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64"}


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = "Decode a pack to a plain checkpoint."
    parser.epilog = (
        "OUT is one file if it ends in .safetensors, .bin or .pt; else a directory, with the configuration and "
        "tokenizer files of the fine-tune."
    )
    parser.add_argument("pack", metavar="PACK", help="the pack, local or remote")
    arguments.add_base(parser)
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the checkpoint to write")
    parser.add_argument(
        "--dtype", choices=DTYPE_NAMES, help="dtype of floating-point tensors (default: as in the fine-tune)"
    )
    parser.add_argument("--device", default="cpu", help="device to compute on, such as cuda (default: cpu)")
    parser.add_argument(
        "--shard-size",
        type=arguments.byte_count,
        metavar="SIZE",
        help="largest file of tensors in a directory (default: 5GB; of an exact pack as the fine-tune's)",
    )
    parser.add_argument(
        "--lossy", action="store_true", help="leave out the residual layer of an exact pack, and do not read it either"
    )
    parser.add_argument("--no-files", action="store_true", help="leave out configuration and tokenizer files")
    arguments.add_force(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import torch

    import dtscodec

    start = time.perf_counter()
    dtype = getattr(torch, DTYPE_NAMES[options.dtype]) if options.dtype else None
    how = {"device": options.device, "dtype": dtype, "whole": True, "lossy": options.lossy}
    with dtscodec.decode(options.pack, options.base, **how) as decoded:
        total = sum(decoded.spec(name).nbytes for name in decoded)
        with progress_bar("decode", total) as progress:
            decoded.save(
                options.output,
                shard_bytes=options.shard_size,
                files=not options.no_files,
                force=options.force,
                progress=progress,
            )
        task = decoded.pack.summary.task or options.pack
        sizes = f"{console.size(decoded.pack.size)} -> {console.size(total)}"
        seconds = time.perf_counter() - start
        console.print_lines(f"{task}: {sizes}, {len(decoded)} tensors, {seconds:.1f} s: {options.output}")
