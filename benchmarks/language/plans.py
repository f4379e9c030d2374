"""How much is measured: everything, what fits in an hour, or what shows that the code works."""

from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.language.tasks import FULL, LORA, Task
from dtscodec.encoding.config import DEFAULT_SIZE
from dtscodec.encoding.targets import Size

AT_PAPERS = "paper's bytes"
"""Setting of `best`: the bytes of the preset `paper`."""
DEFAULT = "default size"
"""Setting of `best`: no size is given."""
HALF = DEFAULT if Size.parse("0.08bpp") == DEFAULT_SIZE else "0.5%"
"""Setting of `best`: 0.5 %, which may be the default size of 16-bit models."""
PAPER_RANK = "rank 0.1"
"""Setting of `paper`, as published."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Parameters
    ----------
    name : str
        Name of the plan.
    tasks : tuple of Task
        Full fine-tunes; peers' settings are chosen on the first.
    others : tuple of Task
        A merged LoRA and another training seed: only our own presets, at a few sizes.
    sizes, calibrated_sizes : tuple of str
        Settings of `best`.
    promised : tuple of str
        Those that are judged on all test tokens, and by exact match.
    few_sizes : tuple of str
        Settings of `best` on the other fine-tunes.
    tokens, few : int
        Test tokens for what is promised, and for sweeps.
    prompts : int
        Exercises.
    steps : int
        Gradient steps of a calibration.
    peers : {"all", "recorded", "first"}
        Settings of the peers: all on the first task, and on the others those that were best there; those that the
        recorded run has chosen; or the first one of each peer.
    """

    name: str
    tasks: tuple[Task, ...]
    others: tuple[Task, ...]
    sizes: tuple[str, ...]
    calibrated_sizes: tuple[str, ...]
    promised: tuple[str, ...]
    few_sizes: tuple[str, ...]
    tokens: int
    few: int
    prompts: int
    steps: int
    peers: Literal["all", "recorded", "first"] = "all"


def _distinct(*settings: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(settings))


PROMISED = _distinct(HALF, DEFAULT, AT_PAPERS)
WHOLE = Plan(
    name="whole",
    tasks=FULL,
    others=(LORA, replace(FULL[0], seed=1)),
    sizes=_distinct("0.05%", "0.1%", "0.2%", HALF, DEFAULT, "1%", AT_PAPERS, "4%", "10%"),
    calibrated_sizes=PROMISED,
    promised=PROMISED,
    few_sizes=_distinct("0.1%", HALF, DEFAULT, AT_PAPERS),
    tokens=8192,
    few=2048,
    prompts=1000,
    steps=100,
)
QUICK = replace(
    WHOLE,
    name="quick",
    tasks=tuple(task for task in FULL if task.name in ("style", "exercises")),
    others=(),
    sizes=("0.1%", HALF, AT_PAPERS),
    calibrated_sizes=(HALF,),
    peers="recorded",
)
TINY = replace(
    QUICK,
    name="tiny",
    tasks=tuple(replace(task, rate=3e-3, steps=4) for task in QUICK.tasks),
    others=(replace(LORA, steps=2),),
    sizes=(DEFAULT, AT_PAPERS, "10%"),
    calibrated_sizes=(DEFAULT, AT_PAPERS),
    promised=(DEFAULT, AT_PAPERS),
    few_sizes=(DEFAULT,),
    tokens=256,
    few=128,
    prompts=8,
    steps=2,
    peers="first",
)
