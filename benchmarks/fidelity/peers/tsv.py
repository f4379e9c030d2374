"""TSV-Compress: the leading singular triplets in fp32, as many as a rank divided among N tasks leaves to each.

Source: "Task Singular Vectors: Reducing Task Interference in Model Merging", CVPR 2025, arXiv 2412.00081,
AntoAndGar/task_singular_vectors (method TSVC). What the code does is floor(min(m, n) / N), not a share of the energy.

Bytes of an m x n matrix at rank r: 4 (r (m + n) + r).
"""

from functools import partial

from torch import Tensor

from benchmarks.fidelity.peers.peer import Coded, Deltas, Setting, by_matrix, leaving_embeddings

# Far more tasks than the authors' 8 to 20, which give 20 % and 6 %: the sizes asked for are those of few components.
TASKS = (384, 192, 128, 64, 48)
TASKS_LEFT = (384, 192, 128, 64, 42, 28)


def settings() -> list[Setting]:
    """Number of tasks."""
    points = {tasks: Setting("TSV-C", f"{tasks} tasks", partial(_code, tasks)) for tasks in TASKS + TASKS_LEFT}
    return [*(points[tasks] for tasks in TASKS), *(leaving_embeddings(points[tasks]) for tasks in TASKS_LEFT)]


def code_triplets(deltas: Deltas, tasks: int) -> Coded:
    """Truncate each matrix to the rank that one of so many tasks gets, at least 1."""

    def code(name: str, delta: Tensor) -> tuple[Tensor, int]:
        u, s, v = deltas.svd(name)
        rank = max(1, min(delta.shape) // tasks)
        return (u[:, :rank] * s[:rank]) @ v[:rank], 4 * (rank * sum(delta.shape) + rank)

    return by_matrix(deltas, code)


def _code(tasks: int, deltas: Deltas, seed: int) -> Coded:
    return code_triplets(deltas, tasks)
