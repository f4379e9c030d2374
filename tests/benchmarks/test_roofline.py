"""The page of floors is what its script prints, and follows from bytes and operations."""

import pytest

from benchmarks import roofline
from benchmarks.roofline import BF16, MODELS, Gpu, Matrix
from tests.support import ROOT


def test_the_page_is_what_the_script_prints() -> None:
    assert (ROOT / "benchmarks" / "roofline.md").read_text().splitlines() == list(roofline.page())


def test_floors_are_those_worked_by_hand() -> None:
    gpu = Gpu("one", 1e12, 1e15, 1e13, 500)
    matrix = Matrix(1024, 3072)
    rank = matrix.rank(0.001)
    assert rank == 6  # 6,291 bytes at 1,024 bytes a component
    floor = roofline.reconstruct(gpu, matrix, rank)
    assert floor.memory == pytest.approx((4 * 1024 * 3072 + 6 * 1024) / 1e12)
    assert floor.products == pytest.approx(6 * 2 * 1024 * 3072 * 6 / 1e15)
    assert floor.instructions == pytest.approx(8 * 48 * 256 * (roofline.OUTSIDE + 500) / 1e13)
    assert floor.seconds == max(floor.memory, floor.products, floor.instructions)
    assert roofline.apply(gpu, matrix, rank, 1) == pytest.approx((6 * 1024 + 2 * (3072 + 2 * 1024)) / 1e12)


def test_models_have_the_parameters_that_they_are_named_for() -> None:
    counts = {name: roofline.parameters(model) for name, (model, _) in MODELS.items()}
    assert counts == {"7B": pytest.approx(6.74e9, rel=0.01), "70B": pytest.approx(68.98e9, rel=0.01)}


def test_a_switch_is_no_faster_than_reading_the_base_and_writing_the_weights() -> None:
    for model, gpus in MODELS.values():
        for gpu in roofline.GPUS:
            least, expected = roofline.switch(gpu, model, 0.001, gpus)
            assert 2 * BF16 * roofline.parameters(model) / gpu.bandwidth / gpus <= least < expected
