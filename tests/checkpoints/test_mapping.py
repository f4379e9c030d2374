from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.torch_dtypes import dtype_code, tensor_bytes, tensor_from_bytes, tensor_spec, torch_dtype
from dtscodec.errors import CheckpointError
from dtscodec.format.dtypes import DTYPES, TensorSpec

from .helpers import TORCHLESS, one_of_each, random_bytes, spec_maps


def test_dtype_codes_round_trip() -> None:
    for code in DTYPES - TORCHLESS:
        dtype = torch_dtype(code)
        assert dtype is not None
        assert dtype_code(dtype) == code
    with pytest.raises(CheckpointError, match="F6_E2M3"):
        torch_dtype("F6_E2M3")


def test_dtype_codes_are_those_of_safetensors() -> None:
    import json

    from safetensors.torch import save

    for code in DTYPES - TORCHLESS - {"F4"}:
        dtype = torch_dtype(code)
        assert dtype is not None
        saved = save(
            {"w": torch.zeros(4, dtype=torch.uint8).view(dtype) if dtype.itemsize == 1 else torch.zeros(4, dtype=dtype)}
        )
        header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
        assert header["w"]["dtype"] == code


def test_four_bit_elements_count_as_in_safetensors() -> None:
    tensor = torch.zeros(3, 4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    assert tensor_spec(tensor) == TensorSpec("F4", (3, 8))


def test_dtype_beyond_safetensors_is_refused() -> None:
    with pytest.raises(CheckpointError, match="complex128"):
        dtype_code(torch.complex128)


@given(spec_maps(), st.booleans())
def test_bytes_round_trip_through_tensors(specs: dict[str, TensorSpec], writable: bool) -> None:
    for name, array in random_bytes(specs).items():
        array.flags.writeable = writable
        tensor = tensor_from_bytes(array, specs[name])
        assert tensor_spec(tensor) == specs[name]
        assert tensor_bytes(tensor).tobytes() == array.tobytes()


@pytest.mark.parametrize("writable", [True, False])
def test_tensor_from_bytes_does_not_copy(writable: bool) -> None:
    for name, spec in one_of_each(torch_only=True).items():
        array = random_bytes({name: spec})[name]
        array.flags.writeable = writable
        assert not array.size or tensor_from_bytes(array, spec).data_ptr() == array.ctypes.data


def test_tensor_from_read_only_bytes_keeps_them_alive() -> None:
    array = np.frombuffer(bytes(range(200)) * 1000, np.uint8)
    tensor = tensor_from_bytes(array, TensorSpec("U8", (200_000,)))
    expected = array.copy()
    del array
    assert np.array_equal(tensor.numpy(), expected)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("turned", lambda t: t.T),
        ("strided", lambda t: t[::2, 1:]),
        ("expanded", lambda t: t[:1].expand(5, 4)),
        ("channels last", lambda t: t.reshape(1, 2, 3, 2).to(memory_format=torch.channels_last)),
        ("gradient", lambda t: t.clone().requires_grad_()),
        ("parameter", torch.nn.Parameter),
        ("conjugate", lambda t: torch.complex(t, t).conj()),
        ("negative view", lambda t: torch.complex(t, t).conj().imag),
        ("buffer", lambda t: torch.nn.Buffer(t)),
    ],
)
def test_bytes_are_in_c_order_whatever_the_view(kind: str, make: Any) -> None:
    tensor = make(torch.arange(12.0).reshape(3, 4))
    assert (
        tensor_bytes(tensor).tobytes() == np.ascontiguousarray(tensor.detach().resolve_conj().resolve_neg()).tobytes()
    )


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("word", "make"),
    [
        ("sparse", lambda: torch.eye(3).to_sparse()),
        ("sparse", lambda: torch.eye(3).to_sparse_csr()),
        ("complex128", lambda: torch.zeros(2, dtype=torch.complex128)),
        ("quantized", lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8)),
        ("meta", lambda: torch.empty(2, device="meta")),
        ("UninitializedParameter", lambda: torch.nn.UninitializedParameter()),
        ("dimensions", lambda: torch.zeros([1] * 9)),
        ("int", lambda: 3),
        ("str", lambda: "text"),
    ],
)
def test_tensors_without_plain_bytes_are_refused_by_name(word: str, make: Any) -> None:
    with pytest.raises(CheckpointError, match=f"'layer.w'.*{word}"):
        open_checkpoint({"a": torch.zeros(1), "layer.w": make()})


@pytest.mark.parametrize("name", ["", "__metadata__", "n" * 1025, "\ud800", 3])
def test_bad_names_are_refused(name: Any) -> None:
    with pytest.raises(CheckpointError, match="names"):
        open_checkpoint({name: torch.zeros(1)})


def test_all_odd_entries_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"'0' \(int\), '1' \(int\).* and 2 more"):
        open_checkpoint({str(i): i for i in range(7)})  # type: ignore[misc]


def test_numpy_arrays_are_read() -> None:
    arrays: dict[str, Any] = {
        "big-endian": np.arange(3, dtype=">f4"),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "scalar": np.array(True),
        "empty": np.zeros((0, 3), np.complex64),
    }
    with open_checkpoint(arrays) as checkpoint:
        assert [str(spec) for spec in checkpoint.specs.values()] == ["F32 [3]", "C64 [0, 3]", "I16 [2, 3]", "BOOL []"]
        assert checkpoint.read("big-endian").view("<f4").tolist() == [0, 1, 2]
        assert checkpoint.read("fortran").view("<i2").tolist() == list(range(6))
        assert checkpoint.read("scalar").tolist() == [1]
        assert checkpoint.read("empty").size == 0


def test_numpy_dtype_beyond_safetensors_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"'w'.*longdouble|'w'.*float128"):
        open_checkpoint({"w": np.zeros(2, np.longdouble)})  # type: ignore[dict-item]


def test_same_numpy_array_twice_is_an_alias() -> None:
    array: Any = np.zeros(4)
    with open_checkpoint({"b": array, "a": array, "c": array[:2]}) as checkpoint:
        assert checkpoint.aliases == {"b": "a"}


def test_mapping_is_not_copied() -> None:
    tensor = torch.zeros(3)
    with open_checkpoint({"w": tensor}) as checkpoint:
        assert checkpoint.read("w").ctypes.data == tensor.data_ptr()
        assert checkpoint.signature("w") is None
        assert checkpoint.directory is None
        assert checkpoint.weight_files == frozenset()


def test_names_ascend_by_their_bytes() -> None:
    names = ["é", "z", "Z", "\uffff", "\U00010000", "a.10", "a.2"]
    with open_checkpoint({name: torch.zeros(1) for name in names}) as checkpoint:
        assert list(checkpoint.specs) == sorted(names, key=str.encode)


def test_module_import_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = "import sys, dtscodec.checkpoints.write, dtscodec.checkpoints.base; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
