"""Files of a model directory: those that are read, and the reasons for which others are passed over."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtscodec.checkpoints.directories.choose_weights import choose_weights
from dtscodec.checkpoints.directories.file_names import DIFFUSERS, TRANSFORMERS, stem_of, usual_stem, variant_of
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.write import write_checkpoint
from dtscodec.errors import CheckpointError
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.weight_files import WeightFiles, is_valid_stem

SPEC = TensorSpec("F32", (2,))
COMPONENT = {"_class_name": "AutoencoderKL"}


def put(directory: Path, *names: str) -> Path:
    """Files of weights, each with one tensor of its own name; for an index, with a shard."""
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if ".index." in name:
            write_checkpoint(directory / f"shard-of-{name}.safetensors", {name: SPEC}, lambda _: np.zeros(8, np.uint8))
            path.write_text(json.dumps({"weight_map": {name: f"shard-of-{name}.safetensors"}}))
        elif name.endswith((".safetensors", ".bin")):
            write_checkpoint(path, {name: SPEC}, lambda _: np.zeros(8, np.uint8))
        else:
            path.write_bytes(b"?")
    return directory


def reasons(directory: Path) -> dict[str, str]:
    with open_checkpoint(directory) as checkpoint:
        return {entry.file: entry.reason for entry in checkpoint.passed_over}


def opened(directory: Path) -> str:
    with open_checkpoint(directory) as checkpoint:
        (name,) = checkpoint.specs
        return name


@given(st.sets(st.sampled_from(TRANSFORMERS + DIFFUSERS), min_size=1), st.booleans())
def test_the_first_name_in_the_framework_s_own_order_is_chosen(names: set[str], is_component: bool) -> None:
    config = COMPONENT if is_component else {}
    order = DIFFUSERS + TRANSFORMERS if is_component else TRANSFORMERS + DIFFUSERS
    assert choose_weights(names, config, "here") == next(name for name in order if name in names)


@given(st.sampled_from(TRANSFORMERS + DIFFUSERS), st.sampled_from(["fp16", "bf16", "non_ema", "fp8-e4m3"]))
def test_a_variant_alone_is_chosen_and_beside_the_default_it_is_not(usual: str, variant: str) -> None:
    path, ending = usual.rsplit(".", 1)
    name = f"{path}.{variant}.{ending}"
    assert variant_of(name) == variant
    assert choose_weights([name], {}, "here") == name
    assert choose_weights([name, usual], {}, "here") == usual
    # It is restored under a name that the framework finds as that variant, and is read from there alike.
    stem = stem_of(name)
    assert stem.endswith(f".{variant}")
    assert {stem_of(WeightFiles(stem).single), stem_of(WeightFiles(stem).index), usual_stem(name)} == {stem}


@given(st.text("abc.-_1 ", min_size=1, max_size=9))
def test_a_stem_reads_back_from_the_names_of_its_files(text: str) -> None:
    stem = stem_of(f"{text}.safetensors")
    assert is_valid_stem(stem)
    files = WeightFiles(stem)
    assert {stem_of(files.single), stem_of(files.index)} <= {stem, stem_of(files.single)}


def test_two_variants_are_refused_with_a_file_to_name(tmp_path: Path) -> None:
    put(tmp_path, "model.fp16.safetensors", "model.bf16.safetensors")
    with pytest.raises(CheckpointError, match=r"bf16, fp16; name a file by its own path, as model\.bf16\.safetensors"):
        open_checkpoint(tmp_path)
    with open_checkpoint(tmp_path / "model.bf16.safetensors") as checkpoint:
        assert checkpoint.stem == "model.bf16"


def test_a_file_that_the_configuration_names_is_chosen(tmp_path: Path) -> None:
    put(tmp_path, "model.safetensors", "other.safetensors")
    (tmp_path / "config.json").write_text('{"transformers_weights": "other.safetensors"}')
    assert opened(tmp_path) == "other.safetensors"


@pytest.mark.parametrize(
    "name", ["model.safetensors.index.fp16.json", "weights.safetensors.index.json", "pytorch_model.bin.index.json"]
)
def test_any_single_index_opens_its_directory(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    assert opened(tmp_path) == opened(tmp_path / name) == name


def test_two_indexes_are_refused_by_name(tmp_path: Path) -> None:
    put(tmp_path, "a.safetensors.index.json", "b.safetensors.index.json")
    with pytest.raises(CheckpointError, match=r"expected one index.*a\.safetensors\.index\.json, b\."):
        open_checkpoint(tmp_path)


def test_a_shard_without_its_index_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "model-00001-of-00003.safetensors")
    with pytest.raises(CheckpointError, match=r"index of the shards.*model-00001-of-00003\.safetensors; copy"):
        open_checkpoint(tmp_path)


def test_the_only_shard_of_one_needs_no_index(tmp_path: Path) -> None:
    put(tmp_path, "model-00001-of-00001.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.stem == "model"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ("model.safetensors.index.json", "name model.safetensors.index.json itself to take it, or remove"),
        (
            "pytorch_model.bin",
            "loads model.safetensors first: remove model.safetensors if it is the older one",
        ),
        ("model.fp16.safetensors", "variant 'fp16'"),
        ("consolidated.safetensors", "Mistral's and Meta's"),
        ("model-00009-of-00009.safetensors", "no index lists it"),
        ("tf_model.h5", "TensorFlow"),
        ("flax_model.msgpack", "Flax"),
        ("model-q4.gguf", "llama.cpp"),
        ("optimizer.pt", "state of the training"),
        ("training_args.bin", "state of the training"),
        ("best.ckpt", "no file that transformers looks for"),
        ("adapter_config.json", "without an adapter's weights it would keep transformers"),
        ("onnx/model.onnx", "for another program"),
        ("checkpoint-500/model.safetensors", "another checkpoint of the training"),
        ("2_Dense/model.safetensors", "no modules.json lists"),
    ],
)
def test_what_is_passed_over_has_its_reason(tmp_path: Path, other: str, reason: str) -> None:
    put(tmp_path, "model.safetensors", other)
    found = reasons(tmp_path)
    file = f"{other.split('/')[0]}/" if "/" in other else other
    assert reason in found.pop(file)
    # The shard of the index has no other index.
    assert set(found) <= {f"shard-of-{other}.safetensors"}
    assert opened(tmp_path) == "model.safetensors"


def test_shards_of_an_index_are_passed_over_with_it(tmp_path: Path) -> None:
    put(tmp_path, "model.safetensors", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert set(reasons(tmp_path)) == {"model.safetensors.index.json"}


def test_a_plain_directory_passes_nothing_over(tmp_path: Path) -> None:
    put(tmp_path, "model.safetensors", "config.json", "tokenizer.model", "1_Pooling/config.json", "run.py")
    assert reasons(tmp_path) == {}


def test_packs_beside_their_base_are_not_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "base.safetensors", "dtscodec.json", "packs/movie.safetensors")
    assert reasons(tmp_path) == {}


def test_a_file_that_the_user_names_passes_nothing_over(tmp_path: Path) -> None:
    put(tmp_path, "model.safetensors", "model.safetensors.index.json")
    assert reasons(tmp_path / "model.safetensors.index.json") == reasons(tmp_path / "model.safetensors") == {}


REFUSALS = {
    "adapter": (["adapter_model.safetensors", "adapter_config.json"], r"an adapter; import it: .*'dtscodec import'"),
    "empty": (["config.json"], r"model\.safetensors, .* got none of them"),
    "fsdp": (["pytorch_model_fsdp_0/__0_0.distcp"], r"FSDP.*accelerate merge-weights \S+/pytorch_model_fsdp_0 OUT"),
    "fsdp itself": (["__0_0.distcp", ".metadata"], r"torch\.distributed.*format_utils dcp_to_torch \S+ OUT\.pt"),
    "lightning shards": (["checkpoint/.metadata", "checkpoint/a.distcp"], r"dcp_to_torch \S+/checkpoint OUT\.pt"),
    "deepspeed": (["global_step5/optim_states.pt"], r"DeepSpeed.*-m deepspeed\.utils\.zero_to_fp32 \S+ OUT"),
    "deepspeed's script": (["global_step5/a.pt", "zero_to_fp32.py"], r"python \S+/zero_to_fp32\.py \S+ OUT"),
    "deepspeed step": (["mp_rank_00_model_states.pt"], r"DeepSpeed.*deepspeed\.utils\.zero_to_fp32"),
    "megatron": (["iter_0000100/a.pt", "latest_checkpointed_iteration.txt"], r"Megatron.*export_ckpt"),
    "megatron ranks": (["mp_rank_00/model_optim_rng.pt"], r"Megatron"),
    "meta": (["consolidated.00.pth", "consolidated.01.pth"], r"2 parts of Meta's own layout.*convert_llama"),
    "meta, one part": (["consolidated.00.pth"], r"name the file itself: \S+/consolidated\.00\.pth"),
    "training": (["checkpoint-90/model.safetensors", "checkpoint-500/a.bin"], r"name one of them: \S+/checkpoint-500"),
    "torch": (["best.ckpt"], r"other names: best\.ckpt; name a file itself"),
    "gguf": (["model-q8.gguf"], r"only llama\.cpp reads; load it with transformers' .*gguf_file"),
    "tensorflow": (["tf_model.h5"], r"only TensorFlow reads.*from_tf=True"),
    "flax": (["flax_model.msgpack"], r"only Flax reads.*from_flax=True"),
    "onnx": (["model.onnx"], r"only ONNX reads; take the checkpoint that it was made from"),
    "folders": (["a/model.safetensors", "b/model.bin"], r"in folders only: a, b; name one of them: \S+/a"),
    "pipeline": (
        ["model_index.json", "unet/a.safetensors", "vae/a.bin"],
        r"of diffusers with unet, vae; take",
    ),
    "cache": (["blobs/x", "snapshots/abc/model.safetensors"], r"cache of the Hub; name a snapshot of it: \S+/abc"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_directory_without_weights_is_named_for_what_it_is(tmp_path: Path, kind: str) -> None:
    names, message = REFUSALS[kind]
    put(tmp_path, *names)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert re.search(message, str(caught.value)), str(caught.value)


def test_a_pipeline_is_refused_beside_a_file_of_all_its_weights(tmp_path: Path) -> None:
    put(tmp_path, "model_index.json", "unet/diffusion_pytorch_model.safetensors", "v1-5.safetensors")
    with pytest.raises(CheckpointError, match="pipeline of diffusers with unet"):
        open_checkpoint(tmp_path)
