"""Rival methods on a language model: those of ``benchmarks.fidelity.peers`` at sizes that fit it, and calibrated ones.

The rules are those of ``benchmarks.fidelity.peers``: every scale, index, count and code is in the size; norms stay the
base's at no cost. Beside the deltas a calibrated method sees a `Calibration`, and nothing else.

A method is a module with a function ``settings(calibration)`` that returns its points, from about 0.05 % to 10 % of the
bytes of the bfloat16 checkpoint. A calibrated setting binds the calibration, as in
``Setting("Delta-CoMe (GPTQ)", "bands x 0.3", partial(_code, calibration, 0.3), calibrated=True)``.
"""

from collections.abc import Callable

from benchmarks.fidelity.peers.peer import Setting
from benchmarks.language.calibration import Calibration
from benchmarks.language.code_version import ROOT, code_version
from benchmarks.language.peers import bitdelta, data_free, delta_come, loraquant

METHODS: tuple[Callable[[Calibration], list[Setting]], ...] = (
    data_free.dts,
    bitdelta.settings,
    data_free.svd,
    delta_come.settings,
    data_free.dare,
    data_free.ultradelta,
    data_free.dqrelo,
    loraquant.settings,
)
"""Of each method the function that returns its settings."""


def settings(calibration: Calibration) -> list[tuple[Setting, str]]:
    """Return all settings of all peers, each with the version of its method's module.

    Parameters
    ----------
    calibration : Calibration
        What calibrated peers may see of the task.
    """
    return [
        (setting, code_version([ROOT / f"{method.__module__.replace('.', '/')}.py"]))
        for method in METHODS
        for setting in method(calibration)
    ]
