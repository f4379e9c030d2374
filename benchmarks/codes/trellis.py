"""Trellis-coded quantization on a bitshift trellis (A. Tseng et al., QTIP, arXiv 2406.11235): vector <-> states.

A vector's bits form a ring, so that no start state is stored (tail-biting). The value of an element is looked up in a
table by the last few bits, so that all elements can be decoded at once.
"""

import ctypes
import functools
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

AROUND = 64
"""Steps on either side of the seam that decide its state."""
ROUNDS, VECTORS, LENGTH = 14, 40, 4096
"""Rounds of Lloyd's iteration on a table, and the normal vectors of each."""
LEAST = 4
"""Elements that a state must code for its value to be fitted."""


@functools.cache
def _library() -> ctypes.CDLL:
    """Return the search, compiled."""
    source = Path(__file__).with_name("viterbi.c")
    # Not -ffast-math: linked with it, a library that is loaded makes the whole process flush subnormal numbers to zero.
    flags = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "viterbi.so")
        subprocess.run(["cc", *flags, "-o", str(out), str(source)], check=True)
        return ctypes.CDLL(str(out))  # Once it is loaded, its file is not needed.


@dataclass(frozen=True, slots=True, eq=False)
class Trellis:
    """A bitshift trellis with the values of its states.

    Parameters
    ----------
    memory : int
        Bits of a state; at most 16.
    bits : int
        Bits of a step.
    table : float32 [2**memory, group]
        Values that a state stands for: those of the elements of a step.
    """

    memory: int
    bits: int
    table: NDArray[np.float32]

    @classmethod
    @functools.cache
    def for_normal(cls, memory: int, bits: int, group: int = 1) -> "Trellis":
        """Return a trellis with values fitted to normal variables of unit variance, always the same.

        Parameters
        ----------
        memory, bits
            As of the class.
        group : int
            Elements of a step.
        """
        random = np.random.default_rng(1)
        # Start: quantiles of the normal distribution, in an order drawn at random.
        count = 1 << memory
        quantiles = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count).numpy()
        table = np.stack([random.permutation(quantiles) for _ in range(group)], axis=1).astype(np.float32)
        for _ in range(ROUNDS):
            # Lloyd's iteration: a state's value becomes the mean of what it codes, half way to damp it.
            values = random.standard_normal((VECTORS, LENGTH)).astype(np.float32)
            trellis = cls(memory, bits, table)
            states = np.concatenate([trellis.search(vector) for vector in values])
            counts = np.bincount(states, minlength=count)[:, None]
            groups = values.reshape(-1, group)
            sums = np.stack([np.bincount(states, part, count) for part in groups.T], axis=1)
            fitted = np.where(counts >= LEAST, sums / np.maximum(counts, 1), table)
            table = ((table + fitted) / 2).astype(np.float32)
        return cls(memory, bits, table)

    def search(self, vector: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Return the states of least squared error; the inverse is `values`.

        Parameters
        ----------
        vector : float32 [steps * group]
            Elements of about unit variance.
        """
        group = self.table.shape[1]
        steps = len(vector) // group
        states = np.empty(steps, np.uint16)
        length, around = ctypes.c_long(steps), ctypes.c_long(AROUND)
        # The arrays stay referenced here while the search reads them.
        elements, table = (np.ascontiguousarray(array, np.float32) for array in (vector, self.table))
        places = [array.ctypes.data_as(ctypes.c_void_p) for array in (elements, table, states)]
        _library().search_ring(places[0], length, places[1], self.memory, self.bits, group, around, places[2])
        return states

    def values(self, states: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Return the elements that states stand for: float32 [steps * group]; the inverse of `search`."""
        return self.table[states].reshape(-1)
