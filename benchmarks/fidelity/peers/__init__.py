"""Rival methods as pure functions on the matrices of a fine-tune's delta, one file a method, and their sweeps.

The common rules, so that equal bytes mean the same for all: every scale, index, count and code is in the size; names
and shapes are the base's, and cost nothing; positions cost their entropy, as no method has a format that would be
fair to count; a matrix has at least one component (unless ranks are pooled); one that did not change costs a byte.
Options of one method are settings of the same peer, so that a peer is judged by the best of them at each size.
"""

from benchmarks.fidelity.peers import (
    bitdelta,
    dare,
    delta_come,
    dqrelo,
    dts,
    int4,
    svd,
    tsv,
    tswitch,
    ultradelta,
)
from benchmarks.fidelity.peers.peer import Coded, Deltas, Setting

__all__ = ["Coded", "Deltas", "Setting", "settings"]

METHODS = (bitdelta, svd, tsv, dts, delta_come, ultradelta, tswitch, dare, dqrelo, int4)


def settings() -> list[Setting]:
    """All settings of all peers; on a BERT of width 384 each peer sweeps what it can reach of 0.03 % to 4 %."""
    return [setting for method in METHODS for setting in method.settings()]
