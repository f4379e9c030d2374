"""One test body for every backend: what each does equals the plain arithmetic in float64, within the spec's bounds."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dtscodec
from dtscodec.kernels.backend import Backend, Share
from dtscodec.kernels.cpu import Cpu
from dtscodec.kernels.packed import PackedFactors
from dtscodec.kernels.reference import Reference
from dtscodec.kernels.select import backend_for
from tests.kernels.strategies import Case, cases, low_rank
from tests.support import ROOT, assert_equals_reference, spec_decoder, spec_stages, spec_tensors

VECTORS = sorted((ROOT / "spec" / "vectors" / "valid").glob("lowrank*"))
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ACCELERATOR = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
DEVICE = ACCELERATOR or torch.device("cpu")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
NO_ACCELERATOR = pytest.mark.skipif(ACCELERATOR is None, reason="torch finds no accelerator here")


def interpreted_triton() -> Backend:
    """On the CPU; `test_triton.py` runs these tests with TRITON_INTERPRET=1."""
    from dtscodec.kernels.triton.triton_backend import Triton

    return Triton()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((Reference, "cpu"), id="reference"),
        pytest.param((Cpu, "cpu"), id="cpu"),
        pytest.param(
            (lambda: backend_for(DEVICE), str(DEVICE)),
            id="accelerator",
            marks=NO_ACCELERATOR,
        ),
        *([pytest.param((interpreted_triton, "cpu"), id="triton-interpreted")] if INTERPRETED else []),
    ],
)
def place(request: pytest.FixtureRequest) -> tuple[Backend, str]:
    """A backend and its device."""
    make: Callable[[], Backend]
    make, device = request.param
    return make(), device


SUBSETS = {"all": (None, None), "rows": (37, None), "cols": (None, 53), "both": (37, 53)}
"""How many rows and columns are coded."""
BANDS = {
    "2 bits": ((11, 2),),
    "4 bits": ((5, 4),),
    "8 bits": ((3, 8),),
    "16 bits": ((4, 16),),
    "all widths": ((1, 16), (2, 8), (3, 4), (40, 2)),
}


def random(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def check(case: Case, base: torch.Tensor, out: torch.Tensor) -> None:
    """Level B of the spec's section 8; what is not coded is the base."""
    wide = torch.float64 if out.dtype == torch.float64 else torch.float32
    summand = base.cpu().to(wide).double().numpy()
    expected = torch.from_numpy(summand + (case.delta() if wide == torch.float64 else case.delta().astype(np.float32)))
    expected = expected.to(wide).to(out.dtype).double()
    epsilon, smallest = (2.0**-53, 2.0**-1022) if wide == torch.float64 else (2.0**-24, 2.0**-126)
    rank = case.block.rank
    bound = (rank + 4) * epsilon * case.magnitude() + (rank + 1) * 40 * smallest
    ulp = np.exp2(np.floor(np.log2(np.maximum(np.abs(expected.numpy()), 2.0**-14)))) * torch.finfo(out.dtype).eps
    assert (np.abs(out.cpu().double().numpy() - expected.numpy()) <= bound + ulp).all()
    still = torch.from_numpy(case.magnitude() == 0)
    same = base.cpu().float() if base.dtype == torch.float64 != out.dtype else base.cpu()
    coded = torch.zeros(still.shape, dtype=torch.bool)
    coded[case.packed().where()] = True
    assert torch.equal(out.cpu()[~coded], same.to(out.dtype)[~coded])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize("per_vector", [False, True], ids=["", "table per vector"])
def test_reconstruct_is_base_plus_delta_within_level_b(
    place: tuple[Backend, str], dtype: torch.dtype, subset: str, bands: str, per_vector: bool
) -> None:
    backend, device = place
    case = low_rank(67, 131, BANDS[bands], *SUBSETS[subset], per_vector=per_vector)
    base = random((67, 131), dtype).to(device)
    out = torch.full_like(base, 7.0)
    backend.reconstruct(base, case.packed(device), out)
    check(case, base, out)


@given(cases(), st.sampled_from(FLOATS), st.sampled_from(FLOATS), st.data())
@settings(deadline=None, max_examples=60)
def test_any_shape_and_any_two_dtypes(place: tuple[Backend, str], case: Case, one: Any, other: Any, data: Any) -> None:
    backend, device = place
    shape = (case.block.height, case.columns)
    base = random(shape, one, data.draw(st.integers(0, 99))).to(device)
    out = torch.empty(shape, dtype=other, device=device)
    backend.reconstruct(base, case.packed(device), out)
    check(case, base, out)


@pytest.mark.parametrize("subset", SUBSETS)
def test_the_result_may_replace_the_base(place: tuple[Backend, str], subset: str) -> None:
    backend, device = place
    case = low_rank(67, 131, BANDS["all widths"], *SUBSETS[subset])
    base = random((67, 131)).to(device)
    out = base.clone()
    backend.reconstruct(out, case.packed(device), out)
    check(case, base, out)


@pytest.mark.parametrize("subset", SUBSETS)
def test_only_what_is_coded_may_be_written(place: tuple[Backend, str], subset: str) -> None:
    backend, device = place
    case = low_rank(67, 131, BANDS["2 bits"], *SUBSETS[subset])
    base, factors = random((67, 131)).to(device), case.packed(device)
    whole, out = torch.empty_like(base), torch.full_like(base, 7.0)
    backend.reconstruct(base, factors, whole)
    backend.reconstruct(base, factors, out, only_coded=True)
    expected = torch.full_like(base, 7.0)
    expected[factors.where()] = whole[factors.where()]
    assert torch.equal(out, expected)


@pytest.mark.parametrize("subset", SUBSETS)
def test_strided_bases_and_results(place: tuple[Backend, str], subset: str) -> None:
    backend, device = place
    case = low_rank(67, 131, BANDS["2 bits"], *SUBSETS[subset])
    base = random((131, 67)).to(device).T
    wide = torch.zeros(67, 400, device=device)
    out = wide[:, 10:272:2]
    backend.reconstruct(base, case.packed(device), out)
    check(case, base, out)
    assert wide[:, 11:272:2].count_nonzero() == wide[:, :10].count_nonzero() == wide[:, 272:].count_nonzero() == 0


def test_a_base_of_zeros_that_is_expanded(place: tuple[Backend, str]) -> None:
    backend, device = place
    case = low_rank(67, 131, BANDS["2 bits"])
    base = torch.zeros((), device=device).expand(67, 131)
    out = torch.empty(67, 131, device=device)
    backend.reconstruct(base, case.packed(device), out)
    check(case, base, out)


def test_large_matrices_in_several_pieces(place: tuple[Backend, str]) -> None:
    backend, device = place
    case = low_rank(700, 1030, ((33, 2),), rows=600)
    base = random((700, 1030), torch.bfloat16).to(device)
    out = torch.empty_like(base)
    backend.reconstruct(base, case.packed(device), out)
    check(case, base, out)


@pytest.mark.parametrize("subset", [(None, None), (600, None), (None, 900), (600, 900)])
def test_dithered_weights_are_rounded_by_the_thresholds_of_their_places(
    place: tuple[Backend, str], subset: tuple[int | None, int | None]
) -> None:
    backend, device = place
    case = low_rank(700, 1030, ((3, 2),), *subset, is_dithered=True)
    base = random((700, 1030), torch.bfloat16).to(device)
    out = torch.empty_like(base)
    backend.reconstruct(base, case.packed(device), out)
    old, delta = base.cpu().float().numpy(), case.delta().astype(np.float32)
    bits = spec_stages.add_dithered(old, delta, *np.ogrid[:700, :1030])
    expected = torch.from_numpy(bits.astype(np.int16)).view(torch.bfloat16)
    # A sum that differs in its last bit may fall on the other side of its threshold.
    assert (out.cpu() == expected).float().mean() > 0.999
    assert (out.cpu() == (base.cpu().float() + torch.from_numpy(delta)).bfloat16()).float().mean() < 0.9


@pytest.mark.parametrize("base_dtype", FLOATS, ids=str)
def test_dithered_nan_stays_nan(place: tuple[Backend, str], base_dtype: torch.dtype) -> None:
    backend, device = place
    case = low_rank(70, 9, ((1, 2),), is_dithered=True)
    # All bits of a NaN of the base are set: whatever is added to them would make them a number.
    width = torch.finfo(base_dtype).bits // 8
    base = torch.full((70, 9 * width), 255, dtype=torch.uint8).view(base_dtype).to(device)
    out = torch.empty(70, 9, dtype=torch.bfloat16, device=device)
    backend.reconstruct(base, case.packed(device), out)
    assert out.isnan().all()


def test_dithered_blocks_are_not_rounded_for_a_model_in_float32(place: tuple[Backend, str]) -> None:
    backend, device = place
    case = low_rank(67, 131, BANDS["2 bits"], is_dithered=True)
    base = random((67, 131)).to(device)
    out = torch.empty_like(base)
    backend.reconstruct(base, case.packed(device), out)
    check(case, base, out)


@pytest.mark.parametrize("precision", ["medium", "high"])
def test_what_the_application_set_for_products_does_not_matter(place: tuple[Backend, str], precision: str) -> None:
    backend, device = place
    case = low_rank(67, 131, ((300, 2),))
    base, out = random((67, 131)).to(device), torch.empty(67, 131, device=device)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
            backend.reconstruct(base, case.packed(device), out)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    check(case, base, out)


@pytest.mark.parametrize("folder", VECTORS, ids=lambda folder: folder.name)
def test_vectors_of_the_spec(place: tuple[Backend, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, device = place
    monkeypatch.setattr("dtscodec.decoding.decoded.backend_for", lambda device: backend)
    pack, base = folder / "pack.safetensors", folder / "base.safetensors"
    reference = spec_decoder.Pack(pack.read_bytes(), lossy=True)
    with dtscodec.decode(pack, base if base.exists() else {}, device=device, lossy=True) as decoded:
        for name in decoded:
            tensors = spec_tensors(base) if base.exists() else {}
            assert_equals_reference(reference, name, decoded.read(name), tensors)


# The side path


TASKS = (((11, 2),), ((1, 16), (2, 8), (3, 4), (40, 2)), ((1, 2),))
"""Bands of tasks of different rank."""


def tasks(subset: str, device: str) -> tuple[list[Case], list[PackedFactors]]:
    made = [low_rank(67, 131, bands, *SUBSETS[subset], seed=seed) for seed, bands in enumerate(TASKS)]
    return made, [case.packed(device) for case in made]


def shares(factors: list[PackedFactors], task_of: torch.Tensor) -> list[Share]:
    return [
        Share(one, (task_of == task).nonzero()[:, 0]) for task, one in enumerate(factors) if (task_of == task).any()
    ]


def close(got: torch.Tensor, expected: np.ndarray, magnitude: np.ndarray) -> None:
    """Equal but for rounding: a few units of float32 in the sum, one of the result's dtype."""
    eps = torch.finfo(got.dtype).eps
    error = np.abs(got.cpu().double().numpy() - expected)
    assert (error <= 1e-5 * magnitude + 1.01 * eps * np.abs(expected) + 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("subset", SUBSETS)
def test_apply_adds_to_each_row_what_its_own_task_makes_of_it(
    place: tuple[Backend, str], subset: str, dtype: torch.dtype
) -> None:
    backend, device = place
    made, factors = tasks(subset, device)
    x, y = random((50, 131), dtype).to(device), random((50, 67), dtype, 2).to(device)
    task_of = torch.randint(-1, 3, (50,), generator=torch.Generator().manual_seed(3)).to(device)
    expected, magnitude = y.double().cpu().numpy(), np.zeros((50, 67))
    for i, task in enumerate(task_of.tolist()):
        if task >= 0:
            row = x[i].double().cpu().numpy()
            expected[i] += made[task].delta() @ row
            magnitude[i] = made[task].magnitude() @ np.abs(row)
    before = y.clone()
    backend.apply(x, shares(factors, task_of), y)
    close(y, expected, magnitude)
    assert torch.equal(y[task_of < 0], before[task_of < 0])


@pytest.mark.parametrize("subset", SUBSETS)
def test_apply_takes_factors_as_transposed(place: tuple[Backend, str], subset: str) -> None:
    backend, device = place
    case = low_rank(67, 131, BANDS["all widths"], *SUBSETS[subset])
    x, y = random((9, 67)).to(device), torch.zeros(9, 131, device=device)
    backend.apply(x, [Share(case.packed(device), slice(None), transposed=True)], y)
    plain = x.double().cpu().numpy()
    close(y, plain @ case.delta(), np.abs(plain) @ case.magnitude())


@pytest.mark.parametrize("subset", SUBSETS)
def test_gather_adds_the_rows_of_each_ones_own_task(place: tuple[Backend, str], subset: str) -> None:
    backend, device = place
    made, factors = tasks(subset, device)
    generator = torch.Generator().manual_seed(3)
    ids, task_of = torch.randint(0, 67, (90,), generator=generator), torch.randint(-1, 3, (90,), generator=generator)
    y = random((90, 131), seed=2).to(device)
    expected, magnitude = y.double().cpu().numpy(), np.zeros((90, 131))
    for i, task in enumerate(task_of.tolist()):
        if task >= 0:
            expected[i] += made[task].delta()[ids[i]]
            magnitude[i] = made[task].magnitude()[ids[i]]
    backend.gather(ids.to(device), shares(factors, task_of.to(device)), y)
    close(y, expected, magnitude)


@given(cases(90), st.integers(1, 70))
@settings(deadline=None, max_examples=30)
def test_one_task_for_all_rows_of_any_shape(place: tuple[Backend, str], case: Case, count: int) -> None:
    backend, device = place
    x, y = random((count, case.columns)).to(device), torch.zeros(count, case.block.height, device=device)
    backend.apply(x, [Share(case.packed(device), slice(None))], y)
    plain = np.abs(x.double().cpu().numpy())
    close(y, x.double().cpu().numpy() @ case.delta().T, plain @ case.magnitude().T)
    ids = torch.arange(case.block.height, device=device)
    rows = torch.zeros(len(ids), case.columns, device=device)
    backend.gather(ids, [Share(case.packed(device), slice(None))], rows)
    close(rows, case.delta(), case.magnitude())


def test_batches_and_matrices_of_many_tiles(place: tuple[Backend, str]) -> None:
    backend, device = place
    made = [low_rank(200, 1030, bands, cols=cols, seed=7) for bands, cols in ((((40, 2),), None), (((3, 8),), 700))]
    factors = [case.packed(device) for case in made]
    x, y = random((230, 1030)).to(device), random((230, 200), seed=2).to(device)
    expected, magnitude = y.double().cpu().numpy(), np.zeros((230, 200))
    batch = [Share(factors[0], slice(70, 210)), Share(factors[1], torch.arange(69, -1, -1, device=device))]
    for case, rows in zip(made, (slice(70, 210), slice(0, 70)), strict=True):
        some = x[rows].double().cpu().numpy()
        expected[rows] += some @ case.delta().T
        magnitude[rows] = np.abs(some) @ case.magnitude().T
    backend.apply(x, batch, y)
    close(y, expected, magnitude)


def test_strided_inputs_and_results_of_a_batch(place: tuple[Backend, str]) -> None:
    backend, device = place
    case = low_rank(67, 131, BANDS["all widths"], rows=37)
    wide = torch.zeros(134, 9, device=device)
    x, y = random((131, 9)).to(device).T, wide[::2].T
    backend.apply(x, [Share(case.packed(device), slice(1, None, 2))], y)
    expected, magnitude = np.zeros((9, 67)), np.zeros((9, 67))
    some = x[1::2].double().cpu().numpy()
    expected[1::2], magnitude[1::2] = some @ case.delta().T, np.abs(some) @ case.magnitude().T
    close(y, expected, magnitude)
    assert wide[1::2].count_nonzero() == 0


def test_a_batch_without_rows(place: tuple[Backend, str]) -> None:
    backend, device = place
    factors = low_rank(67, 131, BANDS["2 bits"], rows=5).packed(device)
    y = torch.empty(0, 67, device=device)
    backend.apply(torch.empty(0, 131, device=device), [Share(factors, slice(None))], y)
    backend.gather(torch.empty(0, dtype=torch.long, device=device), [Share(factors, slice(None))], y.new_empty(0, 131))
    assert y.shape == (0, 67)
