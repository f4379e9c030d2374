"""The Triton kernels without a GPU: what they compute, in Triton's interpreter, and what they compile to.

Each needs its own process: the interpreter is chosen when a kernel's module is imported, and kernels for it cannot be
compiled. The interpreter multiplies in float32, where a GPU uses tensor cores, and rounds to bfloat16 towards zero: so
reading bfloat16 is tested here, and rounding to it only to a unit in the last place. Products on tensor cores are the
subject of `test_triton_precision.py`.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from benchmarks import roofline
from dtscodec.kernels import select
from dtscodec.kernels.reference import Reference
from tests.support import ROOT

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed (extra: gpu)")

INSTRUCTIONS = {80: "mma", 90: "wgmma", 100: "tcgen05"}
"""Matrix instructions of tiles of 64 rows; smaller ones use `mma` everywhere."""
REGISTERS = {
    "reconstruct_tile": (128, 250),
    "project 16": (128, 128),
    "project 64": (128, 255),
    "pick 16": (128, 128),
    "pick 64": (128, 128),
    "expand 16": (128, 128),
    "expand 64": (190, 250),
}
"""The most that a thread may use: for bands of two bits, and for all."""


def run(*command: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_interpreted_kernels_pass_the_tests_of_all_backends() -> None:
    tests = ("-m", "pytest", "-o", "addopts=", "tests/kernels/test_backends.py", "-k", "triton-interpreted")
    summary = run(*tests, TRITON_INTERPRET="1").splitlines()[-1]
    assert " passed" in summary
    assert "skipped" not in summary


@pytest.fixture(scope="module")
def kernels() -> list[dict[str, Any]]:
    """What each kernel compiles to, in each form and for each architecture."""
    lines = run("-m", "tests.kernels.compile_triton", TRITON_INTERPRET="0").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_no_kernel_spills_registers(kernels: list[dict[str, Any]]) -> None:
    assert {kernel["architecture"] for kernel in kernels} == set(INSTRUCTIONS)
    assert not [kernel for kernel in kernels if kernel["spilled"]]


def test_kernels_keep_to_their_registers(kernels: list[dict[str, Any]]) -> None:
    for kernel in kernels:
        most = REGISTERS[kernel["kernel"]][kernel["widths"] != [2]]
        assert kernel["registers"] <= most, kernel


def test_whole_matrices_are_moved_16_bytes_at_a_time(kernels: list[dict[str, Any]]) -> None:
    whole = [kernel for kernel in kernels if kernel["kernel"] == "reconstruct_tile" and len(kernel["widths"]) < 4]
    assert all(kernel["moves_16_bytes"] for kernel in whole)


def test_products_are_done_by_tensor_cores(kernels: list[dict[str, Any]]) -> None:
    for kernel in kernels:
        if kernel["kernel"].startswith("pick"):
            continue
        small = kernel["kernel"].endswith("16")
        assert kernel["products"] == ["mma" if small else INSTRUCTIONS[kernel["architecture"]]], kernel


def test_the_roofline_counts_the_instructions_of_these_kernels(kernels: list[dict[str, Any]]) -> None:
    steps = {80: roofline.GPUS[0].step, 90: roofline.GPUS[1].step}
    for kernel in kernels:
        if kernel["kernel"] == "reconstruct_tile" and kernel["widths"] == [2] and kernel["architecture"] in steps:
            loop = kernel["instructions_in_loop"]
            assert loop == pytest.approx(steps[kernel["architecture"]], rel=0.1)
            assert kernel["instructions"] - loop == pytest.approx(roofline.OUTSIDE, rel=0.1)


@pytest.mark.parametrize(
    ("capability", "version", "serves"),
    [((9, 0), "3.7.1", True), ((8, 0), "3.6.0", True), ((7, 5), "3.7.1", False), ((9, 0), "3.5.1", False)],
)
def test_gpus_and_tritons_that_cannot_do_it_are_served_by_the_reference(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], version: str, serves: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr("triton.__version__", version)
    monkeypatch.setattr(select, "_backend", select._backend.__wrapped__)  # It remembers.
    chosen = select.backend_for(torch.device("cuda"))
    assert (type(chosen).__name__ == "Triton") == serves
    assert isinstance(chosen, Reference)
