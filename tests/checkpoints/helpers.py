"""Small checkpoints for the tests."""

from collections.abc import Mapping
from typing import get_args

import numpy as np
from hypothesis import strategies as st

from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.files.range_reader import Bytes
from dtscodec.format.dtypes import DType, TensorSpec, bits_of

TORCHLESS = {"F6_E2M3", "F6_E3M2"}


def random_bytes(specs: Mapping[str, TensorSpec], seed: int = 0) -> dict[str, Bytes]:
    """Bytes for each tensor; booleans are 0 or 1."""
    rng = np.random.default_rng(seed)
    return {n: rng.integers(0, 2 if s.dtype == "BOOL" else 256, s.nbytes, np.uint8) for n, s in specs.items()}


def assert_holds(checkpoint: Checkpoint, specs: Mapping[str, TensorSpec], data: Mapping[str, Bytes]) -> None:
    """The checkpoint has exactly these tensors, in order of their names."""
    assert list(checkpoint.specs) == sorted(specs)
    assert dict(checkpoint.specs) == dict(specs)
    for name in specs:
        assert checkpoint.read(name).tobytes() == data[name].tobytes(), name


def one_of_each(torch_only: bool = False) -> dict[str, TensorSpec]:
    """Tensors of every dtype: a matrix, a vector, an empty one, and one of no dimensions where bytes allow."""
    specs = {}
    for dtype in get_args(DType):
        if torch_only and dtype in TORCHLESS:
            continue
        shapes: list[tuple[int, ...]] = [(3, 8), (4,), (0, 2), (2, 1, 2, 4)]
        shapes += [()] if bits_of(dtype) >= 8 else []
        for i, shape in enumerate(shapes):
            specs[f"layer.{i}.{dtype}"] = TensorSpec(dtype, shape)
    return specs


def dtypes() -> st.SearchStrategy[DType]:
    """Dtypes of whole bytes."""
    return st.sampled_from([d for d in get_args(DType) if bits_of(d) >= 8])


def spec_maps(max_tensors: int = 6) -> st.SearchStrategy[dict[str, TensorSpec]]:
    """Mappings of names in any script to small specs."""
    names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
    shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
    specs = st.builds(TensorSpec, dtypes(), shapes)
    return st.dictionaries(names.filter(lambda n: n != "__metadata__"), specs, max_size=max_tensors)
