"""Rival methods on a language model: those of ``benchmarks.fidelity.peers`` at sizes that fit it, and calibrated ones.

The rules are those of ``benchmarks.fidelity.peers``: every scale, index, count and code is in the size; norms stay the
base's at no cost. Beside the deltas a calibrated method sees a `Calibration`, and nothing else.

``sweeps`` has the settings of all methods.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from benchmarks.fidelity.peers import bitdelta, dare, dqrelo, dts, grid, matrices, peer, svd, ultradelta
from benchmarks.fidelity.peers import delta_come as bands
from benchmarks.fidelity.peers.peer import Setting
from benchmarks.language.calibration import Calibration
from benchmarks.language.code_version import code_version
from benchmarks.language.peers import delta_come, distillation, gptq, layers, loraquant, sweeps


@dataclass(frozen=True, slots=True)
class Method:
    """A peer.

    Parameters
    ----------
    settings : callable
        Its settings.
    code : tuple of modules
        What decides on its results.
    """

    settings: Callable[[Calibration], list[Setting]]
    code: tuple[ModuleType, ...]

    def version(self) -> str:
        """Return the version of its code."""
        return code_version(Path(str(module.__file__)) for module in (matrices, peer, *self.code))


METHODS = (
    Method(sweeps.dts, (dts,)),
    Method(sweeps.bitdelta, (bitdelta, distillation)),
    Method(sweeps.svd, (svd,)),
    Method(sweeps.delta_come, (bands, grid, delta_come, gptq, layers)),
    Method(sweeps.dare, (dare,)),
    Method(sweeps.ultradelta, (ultradelta,)),
    Method(sweeps.dqrelo, (dqrelo, bitdelta, svd)),
    Method(sweeps.loraquant, (loraquant, grid)),
)


def first_settings(calibration: Calibration) -> frozenset[tuple[str, str]]:
    """Return name and label of the first setting of each peer.

    Parameters
    ----------
    calibration : Calibration
        What calibrated peers may see of the task.
    """
    labels: dict[str, str] = {}
    for setting, _ in settings(calibration):
        labels.setdefault(setting.peer, setting.label)
    return frozenset(labels.items())


def settings(calibration: Calibration) -> list[tuple[Setting, str]]:
    """Return all settings of all peers, each with the version of its code.

    Parameters
    ----------
    calibration : Calibration
        What calibrated peers may see of the task.
    """
    return [(setting, method.version()) for method in METHODS for setting in method.settings(calibration)]
