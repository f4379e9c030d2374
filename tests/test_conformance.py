"""The conformance vectors, run against this package and against the spec's own decoder."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dtscodec
from dtscodec.checkpoints.torch_dtypes import tensor_bytes
from dtscodec.errors import REASONS, DtsError, RefusedError
from dtscodec.files.range_reader import MemoryFile
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.reader import PackReader
from dtscodec.packs.numpy_decoder import NUMPY_DTYPES
from tests.support import ROOT, assert_equals_reference, spec_decoder, spec_stages, spec_tensors

VECTORS = ROOT / "spec" / "vectors"
VALID = sorted((VECTORS / "valid").iterdir())
EXACT = [folder for folder in VALID if (folder / "front.safetensors").exists()]
INVALID = sorted((VECTORS / "invalid").iterdir())
SPEC = (ROOT / "spec" / "dtscodec.md").read_text()


def case_of(folder: Path) -> dict[str, Any]:
    case: dict[str, Any] = json.loads((folder / "case.json").read_text())
    return case


DAMAGED_LAYER = [
    folder for folder in INVALID if {"D4", "X1", "X2", "X3", "X4", "X5", "X6"} & {*case_of(folder)["rules"]}
]


def base_of(folder: Path) -> Path | None:
    """A single file, or a directory where the base has other files."""
    return next((path for path in (folder / "base.safetensors", folder / "base") if path.exists()), None)


def base_files_of(folder: Path) -> dict[str, bytes] | None:
    directory = folder / "base"
    return {path.name: path.read_bytes() for path in directory.iterdir()} if directory.exists() else None


def decode_ours(folder: Path) -> None:
    """Decode all of a pack: every check that the package has."""
    with dtscodec.open(folder / "pack.safetensors") as pack:
        for _ in pack.reader.check_all():
            pass
        base = base_of(folder)
        with dtscodec.decode(pack, base if base else {}) as decoded:
            for name in decoded:
                decoded.read(name)
            decoded.check_base()
            if base is not None and base.is_dir():
                decoded.files()


def verify(folder: Path) -> None:
    """As `dtscodec verify --base`: check every byte and stream, and the base, without decoding."""
    dtscodec.verify(folder / "pack.safetensors", base_of(folder) or {})


def decode_spec(folder: Path) -> None:
    base, files = base_of(folder), base_files_of(folder)
    data = (folder / "pack.safetensors").read_bytes()
    spec_decoder.decode(data, spec_tensors(base) if base else {}, base_files=files)


def reason_of(decode: Callable[[Path], None], folder: Path) -> str:
    """Why a decoder refuses a pack; an empty string if it does not."""
    try:
        decode(folder)
    except (RefusedError, spec_decoder.Refused) as error:
        return str(error.reason)
    return ""


@pytest.mark.parametrize("folder", VALID, ids=lambda folder: folder.name)
def test_valid_packs_decode_to_the_expected_tensors(folder: Path) -> None:
    expected = spec_decoder.read_safetensors((folder / "expected.safetensors").read_bytes())
    reference = spec_decoder.Pack((folder / "pack.safetensors").read_bytes(), lossy=True)
    base = base_of(folder)
    with dtscodec.decode(folder / "pack.safetensors", base if base else {}, lossy=True) as decoded:
        assert sorted(decoded) == sorted(expected)
        for name, tensor in expected.items():
            spec = decoded.spec(name)
            assert (spec.dtype, spec.shape) == (tensor.dtype, tensor.shape)
            assert_equals_reference(reference, name, decoded.read(name), spec_tensors(base) if base else {})
    decode_ours(folder)


@pytest.mark.parametrize("folder", EXACT, ids=lambda folder: folder.name)
def test_packs_with_a_residual_layer_decode_bit_for_bit(folder: Path) -> None:
    expected = spec_decoder.read_safetensors((folder / "expected.safetensors").read_bytes())
    with dtscodec.decode(folder / "pack.safetensors", base_of(folder) or {}) as decoded:
        assert sorted(decoded) == sorted(expected)
        for name, tensor in expected.items():
            assert decoded.read(name).tobytes() == tensor.data, name


@pytest.mark.parametrize("folder", VALID, ids=lambda folder: folder.name)
def test_the_spec_decoder_gives_the_expected_bytes_of_valid_packs(folder: Path) -> None:
    expected = spec_decoder.read_safetensors((folder / "expected.safetensors").read_bytes())
    base = base_of(folder)
    tensors, _ = spec_decoder.decode((folder / "pack.safetensors").read_bytes(), spec_tensors(base) if base else {})
    assert tensors == expected


@pytest.mark.parametrize("folder", EXACT, ids=lambda folder: folder.name)
def test_the_spec_decoder_gives_what_the_front_decodes_to(folder: Path) -> None:
    expected = spec_decoder.read_safetensors((folder / "front.safetensors").read_bytes())
    base, data = base_of(folder), (folder / "pack.safetensors").read_bytes()
    tensors, _ = spec_decoder.decode(data, spec_tensors(base) if base else {}, lossy=True)
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name][:2] == tensor[:2]
        assert with_one_nan(tensors[name]) == with_one_nan(tensor), name


def with_one_nan(tensor: Any) -> bytes:
    """The bytes of a tensor with all NaNs made one: which NaN a conversion gives is not specified."""
    if tensor.dtype not in spec_stages.STORED:
        return bytes(tensor.data)
    values = spec_stages.widen(np.frombuffer(tensor.data, spec_stages.STORED[tensor.dtype]), tensor.dtype)
    return bytes(np.where(np.isnan(values), np.array(np.nan, values.dtype), values).tobytes())


@pytest.mark.parametrize("folder", VALID, ids=lambda folder: folder.name)
def test_single_tensors_without_torch_are_those_of_valid_packs(folder: Path) -> None:
    expected = spec_decoder.read_safetensors((folder / "expected.safetensors").read_bytes())
    reference = spec_decoder.Pack((folder / "pack.safetensors").read_bytes(), lossy=True)
    base = base_of(folder)
    with dtscodec.open(folder / "pack.safetensors") as pack:
        for name, spec in ((entry.name, entry.spec) for entry in pack.index.tensors):
            if spec.dtype not in (*NUMPY_DTYPES, "BF16"):
                with pytest.raises(ValueError, match="expected a dtype that numpy has"):
                    pack.tensor(name, base)
                continue
            array = pack.tensor(name, base, lossy=True)
            assert array.shape == spec.shape
            assert_equals_reference(reference, name, stored(array, spec), spec_tensors(base) if base else {})
            if folder in EXACT:
                data = expected[name].data
                assert pack.tensor(name, base).tobytes() == (widened(data) if spec.dtype == "BF16" else data), name


def stored(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """The bytes of a tensor as `Pack.tensor` gives it: BF16 as float32."""
    tensor = torch.from_numpy(array)
    return tensor_bytes(tensor.bfloat16() if spec.dtype == "BF16" else tensor)


def widened(data: bytes) -> bytes:
    """Bytes of BF16 as those of float32."""
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).tobytes()


@pytest.mark.parametrize("folder", EXACT, ids=lambda folder: folder.name)
def test_weight_files_are_restored_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    facts = case_of(folder)["weights"]
    base = base_of(folder)
    data = spec_tensors(base) if base else {}
    found = spec_decoder.weight_files((folder / "pack.safetensors").read_bytes(), data)
    assert {name: fact(content) for name, content in found.items()} == facts
    if facts:
        with dtscodec.decode(folder / "pack.safetensors", base or {}) as decoded:
            decoded.save(tmp_path / "out")
        assert {name: fact((tmp_path / "out" / name).read_bytes()) for name in facts} == facts


@pytest.mark.parametrize("folder", EXACT, ids=lambda folder: folder.name)
def test_a_stripped_pack_is_the_one_without_a_residual_layer(folder: Path, tmp_path: Path) -> None:
    dtscodec.strip(folder / "pack.safetensors", tmp_path / "front.safetensors")
    front = (tmp_path / "front.safetensors").read_bytes()
    assert front == spec_decoder.strip((folder / "pack.safetensors").read_bytes())
    assert fact(front) == case_of(folder)["stripped"]


def fact(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("folder", VALID, ids=lambda folder: folder.name)
def test_auxiliary_files_of_valid_packs_are_restored(folder: Path) -> None:
    data, base, base_files = (folder / "pack.safetensors").read_bytes(), base_of(folder), base_files_of(folder)
    _, files = spec_decoder.decode(data, spec_tensors(base) if base else {}, base_files=base_files)
    with dtscodec.decode(folder / "pack.safetensors", base) as decoded:
        if base_files is not None:
            ours = decoded.files()
        else:
            reader = decoded.pack.reader
            ours = {f.name: getattr(f, "digest", None) or reader.file(f) for f in reader.index.files}  # type: ignore[arg-type]
    assert ours == files
    # A file that is only named is given as its digest.
    digests = {name: f if isinstance(f, str) else hashlib.sha256(f).hexdigest() for name, f in files.items()}
    assert digests == {name: fact["sha256"] for name, fact in case_of(folder).get("files", {}).items()}


@pytest.mark.parametrize("decoder", [decode_ours, decode_spec], ids=["dtscodec", "spec"])
@pytest.mark.parametrize("folder", INVALID, ids=lambda folder: folder.name)
def test_invalid_packs_are_refused_for_their_reason(folder: Path, decoder: Callable[[Path], None]) -> None:
    assert reason_of(decoder, folder) == case_of(folder)["reason"]


@pytest.mark.parametrize("name", ["damaged-residual", "damaged-layer-digests", "layer-row-signed", "chunk-short"])
def test_damage_of_a_layer_has_its_reason_where_a_tensor_is_read_first(name: str) -> None:
    folder = VECTORS / "invalid" / name
    assert reason_of(read_tensors, folder) == case_of(folder)["reason"]


def read_tensors(folder: Path) -> None:
    with dtscodec.decode(folder / "pack.safetensors", base_of(folder)) as decoded:
        for name in decoded:
            decoded.read(name)


@pytest.mark.parametrize("folder", VALID, ids=lambda folder: folder.name)
def test_flipping_any_byte_of_a_valid_pack_is_noticed(folder: Path) -> None:
    data = (folder / "pack.safetensors").read_bytes()
    # All bytes of all but the few large ones; of residual layers, whose bytes have digests only, a share.
    step = max(1, len(data) // (500 if folder in EXACT else 5000))
    for position in range(0, len(data), step):
        damaged = bytearray(data)
        damaged[position] ^= 0x20
        with pytest.raises(DtsError):
            for _ in PackReader(MemoryFile(bytes(damaged)), "pack").check_all():
                pass


@pytest.mark.parametrize("folder", INVALID, ids=lambda folder: folder.name)
def test_verify_finds_whatever_is_wrong_with_a_pack_or_its_base(folder: Path) -> None:
    if case_of(folder)["rules"] == ["L2"]:
        return  # sound, but larger than the one who decodes allows
    assert reason_of(verify, folder)


@pytest.mark.parametrize("folder", DAMAGED_LAYER, ids=lambda folder: folder.name)
def test_the_front_of_a_pack_decodes_whatever_is_wrong_with_its_residual_layer(folder: Path) -> None:
    base, data = base_of(folder), (folder / "pack.safetensors").read_bytes()
    reference = spec_decoder.Pack(data, lossy=True)
    tensors = spec_tensors(base) if base else {}
    with dtscodec.decode(data, base if base else {}, lossy=True) as decoded:
        assert list(decoded) == reference.names
        for name in decoded:
            if decoded.spec(name).nbytes <= 2**24:
                assert_equals_reference(reference, name, decoded.read(name), tensors)


def test_every_rule_of_the_spec_is_named_by_a_vector() -> None:
    rules = set(re.findall(r"\[([A-Z]\d+)\]", SPEC))
    named = {rule for folder in [*VALID, *INVALID] for rule in case_of(folder)["rules"]}
    assert rules == named


def test_reasons_are_the_same_in_code_spec_and_vectors() -> None:
    table = SPEC.split("## 11. Reasons")[1].split("## 12.")[0]
    in_spec = set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE))
    in_vectors = {case_of(folder)["reason"] for folder in INVALID}
    assert REASONS == in_spec == in_vectors


def test_errors_cite_sections_that_the_spec_has() -> None:
    headings = set(re.findall(r"^#{2,3} (\d+(?:\.\d)?)", SPEC, re.MULTILINE))
    for folder in INVALID:
        with pytest.raises(RefusedError) as caught:
            decode_ours(folder)
        assert caught.value.section in headings, folder.name
