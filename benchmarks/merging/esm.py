"""Part `esm`: ESM with the inputs of each fine-tune's layers, and with each of its scalings off.

Models with routed experts (ESM++) are a part of their own, once the runtime has them.
"""

from benchmarks.merging.bases import judge
from benchmarks.merging.bench import FOUR, MergingBench
from benchmarks.merging.merges import ABLATIONS, ESM

PART = "esm"


def run(bench: MergingBench) -> None:
    """The method, and its ablations; all that they are held against is in part `bases`."""
    for merge in (ESM, *ABLATIONS):
        judge(bench, PART, FOUR, merge)
