"""All measurements on one fine-tune: our presets as real files, and the peers at their settings."""

from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from functools import partial

from benchmarks.fidelity.peers.peer import Setting
from benchmarks.language.bench import BEST, CALIBRATED, PAPER, LanguageBench
from benchmarks.language.code_version import ENCODER, code_version
from benchmarks.language.peers import settings
from benchmarks.language.plans import AT_PAPERS, DEFAULT, PAPER_RANK
from benchmarks.language.points import Key
from dtscodec.encoding.config import EncodeConfig, Paper
from dtscodec.encoding.targets import RankShare, Size

SEEDS = 2
"""Runs of a method that draws random numbers."""


def untouched(bench: LanguageBench) -> None:
    """Judge the fine-tune itself, and the base."""
    bench.untouched("fine-tune", lambda: bench.weights.fine)
    bench.untouched("base", lambda: bench.weights.base)


def ours(bench: LanguageBench, sizes: Sequence[str], calibrated_sizes: Sequence[str]) -> None:
    """Judge both presets; `best` data-free and calibrated.

    Parameters
    ----------
    bench : LanguageBench
        The fine-tune.
    sizes, calibrated_sizes : sequence of str
        Settings of `best`.
    """
    bench.ours(PAPER, PAPER_RANK, lambda: EncodeConfig(RankShare(0.1), Paper()))
    for setting in sizes:
        bench.ours(BEST, setting, partial(_config, bench, setting))
    for setting in calibrated_sizes:
        bench.ours(CALIBRATED, setting, partial(_config, bench, setting), calibrated=True)


def _config(bench: LanguageBench, setting: str) -> EncodeConfig:
    if setting == DEFAULT:
        return EncodeConfig()
    if setting == AT_PAPERS:
        published = bench.log.find(Key(PAPER, PAPER_RANK, code_version(ENCODER), True))
        assert published is not None
        return EncodeConfig(Size(Fraction(published.bytes), "bytes"))
    return EncodeConfig(Size.parse(setting))


def peers(bench: LanguageBench, chosen: Collection[tuple[str, str]] | None = None) -> None:
    """Run the peers.

    Parameters
    ----------
    bench : LanguageBench
        The fine-tune.
    chosen : collection of (str, str), optional
        Name of a peer and label of a setting of those to run; all by default.
    """
    for setting, version, seed in _runs(bench):
        if chosen is None or (setting.peer, setting.label) in chosen:
            bench.peer(setting, version, seed)


def _runs(bench: LanguageBench) -> Iterator[tuple[Setting, str, int]]:
    for setting, version in settings(bench.calibration):
        for seed in range(SEEDS if setting.random else 1):
            yield setting, version, seed
