"""Compile the Triton backend's kernels for GPUs that this machine lacks, and print their resources, for test_triton.py.

`python -m tests.kernels.compile_triton` calls the backend with tensors of the CPU, behind a driver that only names a
GPU: everything happens but the launch itself.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from dtscodec.kernels.backend import Share
from dtscodec.kernels.triton.triton_backend import Triton
from tests.kernels.strategies import Case, low_rank

ARCHITECTURES = (80, 90, 100)
ROWS, COLUMNS = 512, 1024
CASES = {
    torch.bfloat16: low_rank(ROWS, COLUMNS, ((16, 2),)),
    torch.float16: low_rank(ROWS, COLUMNS, ((3, 8), (16, 2))),
    torch.float32: low_rank(ROWS, COLUMNS, ((1, 16), (2, 8), (3, 4), (40, 2)), rows=300, cols=700),
}
"""A block for each dtype: of two bits, of the widths of most packs, and of everything that a block may have."""
BATCHES = (5, 80)
"""Rows for small and for large tiles."""
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


class NoGpu:
    """A driver of a GPU that nothing can be launched on; each architecture counts as a device of its own."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        return self.architecture

    def get_current_stream(self, device: int) -> int:
        return 0


def usage(kernel: Any) -> dict[str, Any]:
    """What a compiled kernel takes, and which instructions it has."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        registers, stack = (int(found) for found in re.findall(r"(?:REG|STACK):(\d+)", _dump("-res-usage", file.name)))
        total, loop = _lengths(_dump("-sass", file.name))
    ptx = kernel.asm["ptx"]
    return {
        "registers": registers,
        "spilled": stack,
        "products": sorted(set(re.findall(r"\b(wgmma|tcgen05|mma)\.(?:mma|sync)", ptx))),
        "moves_16_bytes": all(re.search(rf"{way}\.global\S*\.v4\.", ptx) for way in ("ld", "st")),
        "instructions": total,
        "instructions_in_loop": loop,
    }


def _dump(what: str, file: str) -> str:
    return subprocess.run([CUOBJDUMP, what, file], capture_output=True, text=True, check=True).stdout


def _lengths(code: str) -> tuple[int, int]:
    """Instructions of a kernel, and of its innermost loop with matrix products (0: it has none)."""
    lines = [(int(found[1], 16), found[2]) for found in re.finditer(r"^\s+/\*(\w{4,5})\*/(.*)", code, re.MULTILINE)]
    ends = [(int(back[1], 16), at) for at, text in lines if (back := re.search(r"BRA 0x(\w+)", text))]
    loops = [[text for at, text in lines if first <= at <= last] for first, last in ends if first < last]
    return len(lines), min((len(loop) for loop in loops if any("MMA" in text for text in loop)), default=0)


def call_all(case: Case, dtype: torch.dtype) -> None:
    """Have the backend launch each of its kernels."""
    backend, factors = Triton(), case.packed()
    base = torch.zeros(ROWS, COLUMNS, dtype=dtype)
    backend.reconstruct(base, factors, torch.empty_like(base))
    for count in BATCHES:
        x, y = (torch.zeros(count, columns, dtype=dtype) for columns in (COLUMNS, ROWS))
        backend.apply(x, [Share(factors, slice(None))], y)
        backend.gather(torch.zeros(count, dtype=torch.long), [Share(factors, slice(None))], x)


def main() -> None:
    """Print one line of JSON for each kernel, in each form and for each architecture."""
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **settings: Any) -> None:
        kernel = run(self, *args, grid=grid, warmup=True, **settings)
        name = " ".join([self.__name__, *(str(settings[key]) for key in ("BLOCK_B",) if key in settings)])
        about = {"kernel": name, "architecture": driver.active.architecture, "widths": settings["WIDTHS"]}
        print(json.dumps(about | usage(kernel)), flush=True)

    JITFunction.run = compile_only
    for architecture in ARCHITECTURES:
        driver.set_active(NoGpu(architecture))
        for dtype, case in CASES.items():
            call_all(case, dtype)


if __name__ == "__main__":
    main()
