"""Sizes that DTS publishes, from the ranks that our preset paper takes and the authors' accounting (three bits)."""

import math

import pytest

from dtscodec.encoding.targets import RankShare

Shape = tuple[int, ...]
WIDTH = 768


def layer() -> list[Shape]:
    wide: list[Shape] = [(4 * WIDTH, WIDTH), (4 * WIDTH,), (WIDTH, 4 * WIDTH)]
    return [*wide, *[(WIDTH,)] * 5]


def vit_b_32() -> list[Shape]:
    """The visual tower of CLIP."""
    attention: list[Shape] = [(3 * WIDTH, WIDTH), (3 * WIDTH,), (WIDTH, WIDTH), (WIDTH,)]
    ends: list[Shape] = [(50, WIDTH), (WIDTH, 512), (WIDTH, 3, 32, 32), *[(WIDTH,)] * 5]
    return ends + 12 * (attention + layer())


def clip_texts() -> list[Shape]:
    return [(49408, 512), (77, 512), (512, 512)]


def roberta_base() -> list[Shape]:
    attention: list[Shape] = 4 * [(WIDTH, WIDTH), (WIDTH,)]
    return [(50265, WIDTH), (514, WIDTH), (1, WIDTH), (WIDTH,), (WIDTH,)] + 12 * (attention + layer())


def published_bits(shape: Shape, density: float) -> int:
    if len(shape) != 2:
        return 3 * math.prod(shape)
    rank = RankShare(density).of(*shape)
    return 3 * rank * sum(shape) + 32 * rank


@pytest.mark.parametrize(
    ("shapes", "density", "percent"),
    [
        (vit_b_32() + clip_texts(), 0.3, 3.68),
        (vit_b_32(), 0.3, 3.92),
        (roberta_base(), 0.07, 0.88),
        (roberta_base(), 0.1, 1.26),
    ],
)
def test_ranks_and_the_published_accounting_give_the_published_shares(
    shapes: list[Shape], density: float, percent: float
) -> None:
    share = sum(published_bits(shape, density) for shape in shapes) / (32 * sum(map(math.prod, shapes)))
    assert round(100 * share, 2) == percent
