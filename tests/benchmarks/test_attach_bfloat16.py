"""In bfloat16 the error of `attach` is that of the decoded checkpoint, or little more."""

from benchmarks.attach_bfloat16 import LIMITS, measure


def test_the_error_in_bfloat16_is_within_the_limit() -> None:
    for row in measure(64, 2, 0.3, 0):
        assert 0 < row.attached < 0.1 * row.effect
        assert row.ratios["ratio"] <= LIMITS[row.reference], row
