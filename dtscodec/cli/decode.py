"""``dtscodec decode``: pack + base -> checkpoint."""

import argparse
import time

from dtscodec.cli import arguments, console
from dtscodec.cli.console import progress_bar

DTYPES = {"f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64"}


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    parser.description = "Rebuild a fine-tune from its pack and base, as a plain checkpoint."
    parser.epilog = (
        "OUT is one file if it ends in .safetensors, .bin or .pt; else a directory with the files that travel."
    )
    parser.add_argument("pack", metavar="PACK")
    arguments.add_base(parser)
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the checkpoint to write")
    parser.add_argument("--dtype", choices=DTYPES, help="of floating-point weights (default: each one's own)")
    parser.add_argument("--device", default="cpu", help="where to compute, such as cuda (default: cpu)")
    parser.add_argument(
        "--shard-size", type=arguments.byte_count, metavar="SIZE", default="5GB", help="largest file (default: 5GB)"
    )
    parser.add_argument("--no-files", action="store_true", help="write weights only")
    arguments.add_force(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import torch

    import dtscodec

    start = time.perf_counter()
    dtype = getattr(torch, DTYPES[options.dtype]) if options.dtype else None
    with dtscodec.decode(options.pack, options.base, device=options.device, dtype=dtype, whole=True) as decoded:
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
