"""The least time that GPUs can take for our kernels, from data sheets: ``python -m benchmarks.roofline > roofline.md``.

Nothing here is measured. `benchmarks/roofline.md` is what this prints, and a test holds it to that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

BF16 = 2
"""Bytes of a weight, and of an element of x and y."""
PRODUCTS = 6
"""Products of bfloat16 that one of float32 takes (`dtscodec.kernels.triton.triton_backend.PRECISION`)."""
TILE, STEP, THREADS = (128, 64), 16, 256
"""Rows and columns of a tile of `reconstruct_tile`, components of a step of its loop, and threads of a program."""
OUTSIDE = 390
"""Instructions of a thread outside the loop."""
BANDWIDTH_SHARE, LAUNCH = 0.8, 5e-6
"""What we expect of a kernel that streams: this part of the bandwidth, and so many seconds for each launch."""
SHARES = (0.001, 0.005)
BATCHES = (1, 4, 16, 64, 256)


@dataclass(frozen=True, slots=True)
class Gpu:
    """Peaks of a GPU, and what it makes of our code.

    Parameters
    ----------
    name : str
    bandwidth : float
        Bytes a second.
    bf16 : float
        Dense operations in bfloat16 a second.
    issue : float
        Instructions that all threads together can issue a second: multiprocessors x 4 x 32 x clock.
    step : int
        Instructions of a thread in one step of the loop of `reconstruct_tile`, bands of two bits: counted in the
        machine code that Triton 3.7.1 makes (sm_80, sm_90).
    """

    name: str
    bandwidth: float
    bf16: float
    issue: float
    step: int


GPUS = (
    Gpu("A100 SXM 80 GB", 2.039e12, 312e12, 108 * 4 * 32 * 1.41e9, 752),
    Gpu("H100 SXM", 3.35e12, 989e12, 132 * 4 * 32 * 1.98e9, 495),
    Gpu("H200 SXM", 4.8e12, 989e12, 132 * 4 * 32 * 1.98e9, 495),
)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight matrix of m rows and n columns, and how many of it a model has."""

    m: int
    n: int
    count: int = 1

    def rank(self, share: float) -> int:
        """Components of two bits that take this share of its bytes."""
        return max(1, round(share * BF16 * self.m * self.n * 4 / (self.m + self.n)))

    def packed(self, rank: int) -> float:
        """Bytes of so many components."""
        return rank * (self.m + self.n) / 4


def decoder(layers: int, width: int, inner: int, keys: int, vocabulary: int = 32_000) -> tuple[Matrix, ...]:
    """The matrices of a decoder of Llama's kind."""
    return (
        Matrix(width, width, 2 * layers),
        Matrix(keys, width, 2 * layers),
        Matrix(inner, width, 2 * layers),
        Matrix(width, inner, layers),
        Matrix(vocabulary, width, 2),
    )


MODELS = {
    "7B": (decoder(32, 4096, 11_008, 4096), 1),
    "70B": (decoder(80, 8192, 28_672, 1024), 8),
}
"""Matrices, and GPUs that the model is spread over."""
SQUARE = Matrix(4096, 4096)


@dataclass(frozen=True, slots=True)
class Floor:
    """Seconds that each part of the work takes at least; what can overlap takes as long as the longest."""

    memory: float
    products: float
    instructions: float

    @property
    def seconds(self) -> float:
        """The longest."""
        return max(self.memory, self.products, self.instructions)


def reconstruct(gpu: Gpu, matrix: Matrix, rank: int) -> Floor:
    """W = B + D: the base is read, W written, each once; 2 m n r operations; each tile unpacks its own codes."""
    elements = matrix.m * matrix.n
    threads = THREADS * ceil(matrix.m / TILE[0]) * ceil(matrix.n / TILE[1])
    return Floor(
        (2 * BF16 * elements + matrix.packed(rank)) / gpu.bandwidth,
        PRODUCTS * 2 * elements * rank / gpu.bf16,
        threads * (OUTSIDE + gpu.step * ceil(rank / STEP)) / gpu.issue,
    )


def apply(gpu: Gpu, matrix: Matrix, rank: int, batch: int) -> float:
    """Add x D^T to y for one task: packed codes, x and y; y is read and written."""
    moved = matrix.packed(rank) + BF16 * batch * (matrix.n + 2 * matrix.m)
    return max(moved / gpu.bandwidth, PRODUCTS * 2 * batch * rank * (matrix.m + matrix.n) / gpu.bf16)


def layer(gpu: Gpu, matrix: Matrix, batch: int) -> float:
    """The layer itself, y = x B^T."""
    moved = BF16 * (matrix.m * matrix.n + batch * (matrix.m + matrix.n))
    return max(moved / gpu.bandwidth, 2 * batch * matrix.m * matrix.n / gpu.bf16)


def switch(gpu: Gpu, model: Sequence[Matrix], share: float, gpus: int) -> tuple[float, float]:
    """Seconds to reconstruct all of a model whose base lies on the GPUs: at least, and as we expect."""
    least = expected = 0.0
    for matrix in model:
        floor = reconstruct(gpu, matrix, matrix.rank(share))
        least += matrix.count * floor.seconds / gpus
        slower = max(floor.memory / BANDWIDTH_SHARE, floor.products + floor.instructions)
        expected += matrix.count * (slower / gpus + LAUNCH)
    return least, expected


def parameters(model: Sequence[Matrix]) -> int:
    """Weights of a model's matrices."""
    return sum(matrix.count * matrix.m * matrix.n for matrix in model)


def page() -> Iterator[str]:
    """The lines of `roofline.md`."""
    yield from HEAD.splitlines()
    for gpu in GPUS:
        yield f"| {gpu.name} | {gpu.bandwidth / 1e12:.3f} | {gpu.bf16 / 1e12:.0f} | {gpu.issue / 1e12:.1f} |"
    yield from RECONSTRUCT.splitlines()
    for gpu in GPUS:
        for share in SHARES:
            rank = SQUARE.rank(share)
            floor = reconstruct(gpu, SQUARE, rank)
            times = (floor.memory, floor.products, floor.instructions, floor.seconds)
            yield f"| {gpu.name} | {rank} | " + " | ".join(f"{1e6 * seconds:.1f}" for seconds in times) + " |"
    yield from APPLY.splitlines()
    for gpu in GPUS:
        for batch in BATCHES:
            own, *ours = layer(gpu, SQUARE, batch), *(apply(gpu, SQUARE, SQUARE.rank(share), batch) for share in SHARES)
            cells = [f"{1e6 * own:.1f}", *(f"{1e6 * seconds:.2f} ({seconds / own:.1%})" for seconds in ours)]
            yield f"| {gpu.name} | {batch} | " + " | ".join(cells) + " |"
    yield from SWITCH.splitlines()
    for name, (model, gpus) in MODELS.items():
        for gpu in GPUS:
            for share in SHARES:
                least, expected = switch(gpu, model, share, gpus)
                size = share * BF16 * parameters(model)
                cells = [f"{share:.1%}", f"{size / 1e6:.1f}", f"{1e3 * least:.1f}", f"{1e3 * expected:.1f}"]
                yield f"| {name} | {gpus} x {gpu.name} | " + " | ".join(cells) + " |"
    yield from FOOT.splitlines()


HEAD = """\
# What GPUs could do at best

**No GPU timings exist yet.** Everything on this page is arithmetic on data sheets; `python -m benchmarks.roofline`
prints it. The kernels are checked without a GPU: computed in Triton's interpreter, compiled for sm_80, sm_90, sm_100.

A kernel takes at least as long as its bytes take at the memory's full bandwidth, and as its operations take at the
tensor cores' peak. Peaks are those of NVIDIA's data sheets ([A100](https://www.nvidia.com/en-us/data-center/a100/),
[H100](https://www.nvidia.com/en-us/data-center/h100/), [H200](https://www.nvidia.com/en-us/data-center/h200/)),
without sparsity. Instructions are those of all threads: multiprocessors x 4 x 32 x highest clock.

| GPU | memory, TB/s | BF16, 10^12 operations/s | 10^12 instructions/s |
|---|---|---|---|"""

RECONSTRUCT = f"""
## Reconstruct: W = B + (u s) v^T

For m x n weights in BF16 and r components of two bits: the base is read and W written, 4 m n bytes; r (m + n) / 4 bytes
of packed codes are next to nothing. 2 m n r operations, each done by {PRODUCTS} products of bfloat16, which keeps the
precision of float32. And instructions, since each tile of {TILE[0]} x {TILE[1]} unpacks its own codes: for each of its
{THREADS} threads {GPUS[0].step} (sm_80) or {GPUS[1].step} (sm_90) for {STEP} components, and {OUTSIDE} beside, as
counted in the code that the kernel compiles to. The ranks are those of packs of 0.1 % and 0.5 %. 4096 x 4096,
microseconds:

| GPU | rank | memory | products | instructions | at least |
|---|---|---|---|---|---|"""

APPLY = f"""
## Apply: y += ((x v) s) u^T

For a batch of b rows of one task: r (m + n) / 4 bytes of codes, and x and y, which is read and written;
{PRODUCTS} x 2 b r (m + n) operations. Beside it the layer itself, y = x B^T. 4096 x 4096, microseconds, in brackets as
a share of the layer:

| GPU | batch | layer | pack of 0.1 % | pack of 0.5 % |
|---|---|---|---|---|"""

SWITCH = f"""
## Switching a whole model to another task

All matrices of a Llama-like model, reconstructed from a base and a pack that lie on the GPU (for 70B, spread evenly
over eight). "Expected" is {BANDWIDTH_SHARE:.0%} of the bandwidth, instructions and products one after the other, and
{1e6 * LAUNCH:.0f} microseconds for each matrix.

| model | GPUs | pack | MB | at least, ms | expected, ms |
|---|---|---|---|---|---|"""

FOOT = """
## What is not in these figures

- Latency. `apply` is three launches, each of a few microseconds, and for small batches the floors above are far below
  that: what counts there is the number of launches, and CUDA graphs.
- The copy of a table of a few hundred bytes to the GPU before each launch.
- Bands of other widths: as many values from more bytes, which still do not matter.

What follows from them: with the few components of a pack of 0.1 % the memory decides, and the kernel may come near it.
With those of 0.5 % instructions do, two to four times the memory's time. What would help there are larger tiles, levels
that are cut into parts before they are looked up, and on Hopper two tiles that share what they unpacked."""


def main() -> None:
    """Print the page."""
    for line in page():
        print(line)


if __name__ == "__main__":
    main()
