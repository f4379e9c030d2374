"""The lines that `encode` prints about the search for a promise, and about how to measure a pack."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtscodec.cli import console

if TYPE_CHECKING:
    from dtscodec.promises.bounds import Bound
    from dtscodec.promises.trials import Trial


def trial_line(task: str, trial: "Trial", bound: "Bound") -> str:
    """Return the line about a pack that was tried.

    Parameters
    ----------
    task : str
        Name of the fine-tune.
    trial : Trial
        The pack.
    bound : MaxKl or MinAgreement
        The promise.
    """
    fit = "after the fit" if trial.is_fitted else "before a fit"
    figure = bound.figure(trial.samples)
    words = f"KL {figure:.3g}" if bound.measure == "kl" else f"agrees {100 * figure:.2f} %"
    return f"{task}: tried {console.size(trial.size)}, {fit} {words} on {len(trial.samples)} samples"


def trial_facts(trial: "Trial", bound: "Bound") -> dict[str, Any]:
    """Return a pack that was tried as a document for ``--json``."""
    return {
        "size": trial.size,
        "fitted": trial.is_fitted,
        "samples": len(trial.samples),
        "figure": bound.figure(trial.samples),
    }


def unit_of(step: str) -> str:
    """Return the unit of the bar of a step of the search."""
    return {"encode": "B", "fit": " steps"}.get(step.split(" ")[0], " samples")


def measure_line(task: str, pack: Path, fine_tune: str, base: str | None) -> str:
    """Return the line that says how to measure a pack that was made without samples.

    Parameters
    ----------
    task : str
        Name of the fine-tune.
    pack : Path
        The pack.
    fine_tune, base : str
        The checkpoints, as they were given.
    """
    words = ["dtscodec", "compare", str(pack), fine_tune, *(["--base", base] if base else []), "--samples"]
    return f"{task}: to measure how it behaves: {shlex.join(words)} SAMPLES"
