"""Compile each Triton kernel for GPUs that are not here, and print what it takes as JSON. Run by test_triton.py.

`python -m tests.kernels.compile_triton` compiles with the tiles that the backend launches.
"""

import itertools
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dtscodec.kernels.triton_apply import expand, pick, project
from dtscodec.kernels.triton_backend import EXPAND, PICK, PRECISION, PROJECT, RECONSTRUCT, registers
from dtscodec.kernels.triton_reconstruct import reconstruct

ARCHITECTURES = (80, 90, 100)
FORMS = (((2,), "bf16", None), ((2, 8), "fp16", None), ((2, 4, 8, 16), "fp32", tl.int16))
"""Widths of the bands, dtype of the tensors, type of the indices of rows and columns."""
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
OPTIONS = ("num_warps", "num_stages", "maxnreg")
POINTERS = {"hidden": "fp32", "table": "i64", "tiles": "i64", "rows": "i64", "at": "i64"}
"""Types of what is not of the model's dtype."""


def kernels(widths: tuple[int, ...], index: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name, function and constants of each kernel in each of its forms."""
    common = {"WIDTHS": widths, "PRECISION": PRECISION}
    limit = {"maxnreg": registers(widths, whole=index is None)}
    yield "reconstruct", reconstruct, {"ROW_INDEX": index, "COLUMN_INDEX": index, **common, **limit, **RECONSTRUCT}
    for rows, settings in PROJECT.items():
        yield f"project {rows}", project, {"BLOCK_B": rows, "COLUMN_INDEX": index, **common, **settings}
        yield "pick", pick, {"WIDTHS": widths, "BLOCK_B": rows, **PICK}
    for (rows, settings), side in itertools.product(EXPAND.items(), (0, 1)):
        yield f"expand {rows}", expand, {"BLOCK_B": rows, "SIDE": side, "INDEX": index, **common, **settings}


def compiled(function: Any, settings: dict[str, Any], dtype: str, architecture: int) -> dict[str, Any]:
    """What a kernel takes where columns are next to one another and all counts are multiples of 16."""
    options = {name: settings[name] for name in OPTIONS if name in settings}
    constants = {name: value for name, value in settings.items() if name not in OPTIONS}
    constants |= {name: 1 for name in function.arg_names if name.endswith("_column") and name.islower()}
    signature = {name: _type_of(name, constants, dtype) for name in function.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if kind != "constexpr"}
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned)
    done = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(done.asm["cubin"])
        file.flush()
        usage = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.search(rf"{what}:(\d+)", usage)[1]) for what in ("REG", "STACK"))  # type: ignore[index]
    ptx = done.asm["ptx"]
    return {
        "registers": registers,
        "spilled": stack,
        "instructions": sorted(set(re.findall(r"\b(wgmma|tcgen05|mma)\.(?:mma|sync)", ptx))),
        "moves_16_bytes": bool(re.search(r"ld\.global\S*\.v4\.", ptx) and re.search(r"st\.global\S*\.v4\.", ptx)),
    }


def _type_of(name: str, constants: dict[str, Any], dtype: str) -> str:
    if name in constants:
        return "constexpr"
    if name in ("base", "out", "x", "y") or name in POINTERS:
        return "*" + POINTERS.get(name, dtype)
    return "i32"


def main() -> None:
    """Print one line of JSON for each kernel, form and architecture."""
    for architecture, (widths, dtype, index) in itertools.product(ARCHITECTURES, FORMS):
        for name, function, settings in kernels(widths, index):
            found = compiled(function, settings, dtype, architecture)
            print(json.dumps({"kernel": name, "architecture": architecture, "widths": widths, **found}), flush=True)


if __name__ == "__main__":
    main()
