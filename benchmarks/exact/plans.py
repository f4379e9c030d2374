"""How much is measured: everything, a part of it in some minutes, or what shows that the code works."""

from dataclasses import dataclass, replace

from benchmarks.exact.training_run import TrainingRun
from benchmarks.language.tasks import FULL, LORA, Task

SAVES = 50
STYLE = FULL[0]
SMALL_RATE, STEPS = 1e-6, "steps at 1e-6"
"""A learning rate at which few weights change in bfloat16, and the name of its run."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Parameters
    ----------
    name : str
        Name of the plan.
    demo : bool
        Whether the demo's pair is measured, in fp32 and in bf16.
    tasks : tuple of Task
        Full fine-tunes of the language model.
    others : tuple of Task
        Fine-tunes that the mean leaves out: a merged LoRA.
    sizes : tuple of str
        Sizes of lossy packs on the curve.
    runs : tuple of TrainingRun
        Runs whose saves are stored as series.
    codes : str
        Size of the codes in the packs that have codes of a fixed size; one of `benchmarks.exact.dts.CODES`.
    repeats : int
        How often each piece of work is timed.
    """

    name: str
    demo: bool
    tasks: tuple[Task, ...]
    others: tuple[Task, ...]
    sizes: tuple[str, ...]
    runs: tuple[TrainingRun, ...]
    codes: str
    repeats: int


WHOLE = Plan(
    name="whole",
    demo=True,
    tasks=FULL,
    others=(LORA,),
    sizes=("0.05%", "0.1%", "0.2%", "0.5%", "1%", "2%", "4%", "8%"),
    runs=(
        TrainingRun("training", replace(STYLE, steps=2 * SAVES), every=2),
        TrainingRun(STEPS, replace(STYLE, rate=SMALL_RATE, steps=SAVES), every=1, constant=True),
    ),
    codes="0.5%",
    repeats=3,
)
QUICK = replace(WHOLE, name="quick", tasks=FULL[:1], others=(), sizes=("0.05%", "0.5%", "4%"), runs=())
TINY = Plan(
    name="tiny",
    demo=False,
    tasks=(replace(STYLE, rate=3e-3, steps=4),),
    others=(),
    sizes=("1%", "10%"),
    runs=tuple(replace(run, task=replace(run.task, steps=4 * run.every)) for run in WHOLE.runs),
    codes="10%",
    repeats=1,
)
PLANS = {plan.name: plan for plan in (WHOLE, QUICK, TINY)}
