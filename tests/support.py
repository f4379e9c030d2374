"""Helpers of several tests: making packs that the spec's decoder has checked."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dtscodec
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.torch_dtypes import tensor_from_bytes
from dtscodec.format.dtypes import TensorSpec

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "spec"))

import checks as spec_checks  # noqa: E402  # the spec stands alone and is no package
import decoder as spec_decoder  # noqa: E402
import residual as spec_residual  # noqa: E402
import stages as spec_stages  # noqa: E402

__all__ = [
    "CODING",
    "ROOT",
    "assert_equals_reference",
    "check_against_spec",
    "make_pack",
    "spec_checks",
    "spec_decoder",
    "spec_residual",
    "spec_stages",
    "spec_tensors",
]

CODING: dict[str, dict[str, Any]] = {"paper": {"preset": dtscodec.Paper()}, "best": {"target": dtscodec.RankShare(0.1)}}
"""Settings of either preset under which all that changed is coded, and what is new stays exact."""

ULP_BITS = {"F16": 10, "BF16": 7, "F32": 23, "F64": 52}
SMALLEST = {"F16": 2.0**-24, "BF16": 2.0**-133, "F32": 2.0**-149, "F64": 5e-324}


def make_pack(base: Source, fine: Source, out: Path, **settings: Any) -> dtscodec.EncodeReport:
    """Encode with these settings of `EncodeConfig`, and check the pack with the spec's decoder."""
    report = dtscodec.encode(base, fine, out, dtscodec.EncodeConfig(**settings))
    check_against_spec(report.path, base)
    return report


def check_against_spec(path: Path, base: Source) -> None:
    """Our decoder equals the spec's: bit for bit at level A, within the bound at level B (spec section 8).

    With a residual layer, all tensors and weight files are equal bit for bit, too (section 15)."""
    reference = spec_decoder.Pack(path.read_bytes(), lossy=True)
    tensors = spec_tensors(base)
    with dtscodec.decode(path, base, lossy=True) as decoded:
        assert list(decoded) == list(reference.names)
        for name in decoded:
            assert_equals_reference(reference, name, decoded.read(name), tensors)
    reference.check_base()
    exact = spec_decoder.Pack(path.read_bytes())
    if exact.is_exact:
        found = {name: exact.decode_tensor(name, tensors) for name in exact.names}
        with dtscodec.decode(path, base) as decoded:
            assert {name: decoded.read(name).tobytes() for name in decoded} == {n: t.data for n, t in found.items()}
            layer = decoded.pack.reader.layer
            assert layer is not None
            assert layer.weight_files() == exact.weight_headers()


def spec_tensors(source: Source) -> dict[str, Any]:
    """A checkpoint as the spec's decoder takes it."""
    with open_checkpoint(source) as checkpoint:
        return {
            name: spec_decoder.Tensor(spec.dtype, spec.shape, checkpoint.read(name).tobytes())
            for name, spec in checkpoint.specs.items()
        }


def assert_equals_reference(reference: Any, name: str, data: np.ndarray, base: dict[str, Any]) -> None:
    """Compare the bytes of one decoded tensor with what the spec's decoder makes of it (rule L1)."""
    expected = reference.decode_tensor(name, base)
    if data.tobytes() == expected.data:
        return
    spec = TensorSpec(expected.dtype, expected.shape)
    ours = tensor_from_bytes(data, spec).to(torch.float64).numpy().ravel()
    theirs = tensor_from_bytes(np.frombuffer(expected.data, np.uint8), spec).to(torch.float64).numpy().ravel()
    bound = reference.level_b_bound(name).ravel()
    # Outside low-rank parts the bound is zero: there every bit must be equal.
    differ = (ours != theirs) & ~(np.isnan(ours) & np.isnan(theirs))  # any NaN is as good as any other
    assert (bound[differ] > 0).all(), f"{name}: level A differs"
    ours, theirs, bound = ours[differ], theirs[differ], bound[differ]
    near = np.abs(ours - theirs) <= bound + ulp(theirs, expected.dtype)
    assert (near | ~(np.isfinite(theirs) | np.isfinite(ours))).all(), f"{name}: beyond level B"


def ulp(values: np.ndarray, dtype: str) -> np.ndarray:
    """One unit in the last place of a dtype at these values."""
    with np.errstate(divide="ignore"):
        exponents = np.where(values == 0, -1100.0, np.floor(np.log2(np.abs(values))))
    unit: np.ndarray = np.maximum(np.exp2(exponents - ULP_BITS[dtype]), SMALLEST[dtype])
    return unit
