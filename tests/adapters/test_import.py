"""Adapters of every form that is understood become packs; any other is refused with one line."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file
from torch import Tensor, nn

import dtscodec
from dtscodec.adapters import lora_pair as pairs
from dtscodec.encoding.presets.one_width import encode_factored
from dtscodec.errors import CheckpointError, ConfigError, DtsError, EncodeError
from dtscodec.format.blocks import BaseRows
from dtscodec.format.index import ChangedFile, NamedFile
from dtscodec.packs.byte_counts import tensor_sizes
from tests import models
from tests.adapters.helpers import Trained, train
from tests.support import check_against_spec


def check_is_merged(trained: Trained, **options: Any) -> dict[str, str]:
    """The pack decodes to what PEFT's own merge gives, and the spec's decoder agrees; kinds of what changed."""
    report = trained.imported(**options)
    check_against_spec(report.path, trained.base_path)
    true, base = trained.merged(), trained.base.state_dict()
    with dtscodec.decode(report.path, trained.base_path) as decoded:
        for name in decoded:
            change = (true[name] - base.get(name, torch.zeros(()))).norm()
            assert (decoded[name] - true[name]).norm() <= 1e-3 * change + 1e-6 * true[name].norm(), name
    with dtscodec.open(report.path) as pack:
        return {size.name: size.kind for size in tensor_sizes(pack) if size.kind != "same"}


@pytest.mark.parametrize(
    "config",
    [
        {"rank_pattern": {"query": 2}},
        {"alpha_pattern": {"layer.0.attention.self.query": 3, "value": 20}},
        {"rank_pattern": {"value": 7, "query": 1}, "alpha_pattern": {r".*\.1\..*": 5}},
        {"use_rslora": True},
        {"use_rslora": True, "rank_pattern": {"query": 9}, "alpha_pattern": {"query": 2}},
        {"bias": "lora_only"},
        {"bias": "all"},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "mica"},
        {"lora_bias": True, "use_rslora": True},
        {"layers_to_transform": [1], "layers_pattern": "layer"},
        {"target_modules": ["word_embeddings", "query"]},
    ],
    ids=str,
)
def test_patterns_scales_biases_and_embeddings_are_understood(config: dict[str, Any], tmp_path: Path) -> None:
    check_is_merged(train("bert", tmp_path, **config))


def test_modules_to_save_replace_tensors_exactly(tmp_path: Path) -> None:
    trained = train("bert", tmp_path, modules_to_save=["classifier", "pooler.dense"])
    saved = {f"{name}.{part}" for name in ("classifier", "bert.pooler.dense") for part in ("weight", "bias")}
    assert {name for name, kind in check_is_merged(trained).items() if kind == "raw"} == saved
    assert set(trained.imported().exact) == saved


def test_a_new_head_is_new_and_the_prefix_of_the_base_is_found(tmp_path: Path) -> None:
    trained = train("bert", tmp_path, modules_to_save=["classifier"])
    bare = models.save(trained.base.bert, tmp_path / "bare")
    report = dtscodec.import_adapter(trained.path, bare, tmp_path / "pack")
    check_against_spec(report.path, bare)
    true = trained.merged()
    with dtscodec.decode(report.path, bare) as decoded:
        assert decoded.keys() == true.keys()
        assert all(torch.allclose(decoded[name], true[name], atol=1e-4) for name in true)
        assert torch.equal(decoded["classifier.weight"], true["classifier.weight"])


def test_an_adapter_of_the_bare_model_fits_a_base_with_a_head(tmp_path: Path) -> None:
    config = models.llama().config
    config.tie_word_embeddings = False
    whole = models.save(hf.LlamaForCausalLM(config), tmp_path / "whole")
    trained = Trained(tmp_path, hf.LlamaModel.from_pretrained(whole), {}, target_modules=["q_proj"])
    report = dtscodec.import_adapter(trained.path, whole, tmp_path / "pack")
    check_against_spec(report.path, whole)
    true = trained.merged()
    with dtscodec.decode(report.path, whole) as decoded:
        assert decoded.keys() == {*true, "lm_head.weight"}
        assert all(torch.allclose(decoded[name], true[name], atol=1e-4) for name in true)


class Convolutions(nn.Module):
    """One of each dimension, and heads of a transformer's shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv1d(8, 12, 3), nn.Conv2d(12, 10, 3), nn.Conv3d(6, 8, 2)
        self.point, self.grouped = nn.Conv2d(8, 16, 1), nn.Conv2d(8, 8, 3, groups=2)
        self.even = nn.Linear(8, 8)


def on_disk(folder: Path, model: nn.Module, **config: Any) -> Trained:
    """An adapter of a model that is none of transformers."""
    model.save_pretrained = lambda path: (path.mkdir(), save_file(model.state_dict(), path / "model.safetensors"))  # type: ignore[assignment]
    return Trained(folder, model, {}, **config)


def test_convolutions_of_every_dimension_are_understood(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = on_disk(tmp_path, Convolutions(), target_modules=["one", "two", "three", "point", "even"])
    kinds = check_is_merged(trained)
    assert set(kinds.values()) == {"lowrank"}
    assert len(kinds) == 5


def test_grouped_convolutions_are_refused(tmp_path: Path) -> None:
    trained = on_disk(tmp_path, Convolutions(), target_modules=["grouped"])
    assert "grouped" in refusal(trained, DtsError)


def test_square_weights_of_gpt2_are_transposed_like_the_others_even_if_the_flag_is_wrong(tmp_path: Path) -> None:
    trained = train("gpt2", tmp_path)
    trained.change_config(fan_in_fan_out=False)  # As PEFT leaves it if it came upon a linear layer last.
    check_is_merged(trained)


def test_a_head_that_the_base_lacks_may_be_mapped_to_the_embedding(tmp_path: Path) -> None:
    trained = train("llama", tmp_path, target_modules=["q_proj", "lm_head"])
    # Without the configuration nothing tells that the model ties its head.
    (trained.base_path / "config.json").unlink()
    assert "renames=[('lm_head.weight', 'NAME')]" in refusal(trained, EncodeError)
    report = trained.imported(renames=[("lm_head.weight", "model.embed_tokens.weight")])
    check_against_spec(report.path, trained.base_path)
    adapted: Any = trained.model
    delta = adapted.base_model.model.lm_head.get_delta_weight("default").detach()
    with dtscodec.decode(report.path, trained.base_path) as decoded:
        change = decoded["lm_head.weight"] - decoded["model.embed_tokens.weight"]
        assert torch.allclose(change, delta, atol=1e-3 * float(delta.abs().max()))


def test_a_full_copy_of_a_targeted_embedding_takes_no_bytes(tmp_path: Path) -> None:
    trained = train("bert", tmp_path, target_modules=["word_embeddings"])
    trained.change_tensors(
        lambda tensors: tensors.update(
            {
                "base_model.model.bert.embeddings.word_embeddings.base_layer.weight": (
                    trained.base.bert.embeddings.word_embeddings.weight.detach().clone()
                )
            }
        )
    )
    assert check_is_merged(trained) == {"bert.embeddings.word_embeddings.weight": "lowrank"}


def test_a_base_in_bfloat16_keeps_its_dtype(tmp_path: Path) -> None:
    trained = train("llama", tmp_path)
    half = models.save(copy.deepcopy(trained.base).bfloat16(), tmp_path / "half")
    report = dtscodec.import_adapter(trained.path, half, tmp_path / "pack")
    check_against_spec(report.path, half)
    with dtscodec.decode(report.path, half) as decoded:
        assert {decoded[name].dtype for name in decoded} == {torch.bfloat16}


def test_rows_and_components_that_are_zero_stay_untouched(tmp_path: Path) -> None:
    trained = train("bert", tmp_path, target_modules=["word_embeddings", "query"])

    def clear(tensors: dict[str, Tensor]) -> None:
        tensors["base_model.model.bert.embeddings.word_embeddings.lora_embedding_A"][:, 5:] = 0
        tensors["base_model.model.bert.encoder.layer.0.attention.self.query.lora_B.weight"][:, 1:] = 0
        tensors["base_model.model.bert.encoder.layer.1.attention.self.query.lora_B.weight"].zero_()

    trained.change_tensors(clear)
    report = trained.imported(bits=2)
    check_against_spec(report.path, trained.base_path)
    with dtscodec.open(report.path) as pack, dtscodec.decode(pack, trained.base_path) as decoded:
        words = "bert.embeddings.word_embeddings.weight"
        assert torch.equal(decoded[words][5:], trained.base.state_dict()[words][5:])
        sizes = {size.name: size for size in tensor_sizes(pack)}
    assert sizes["bert.encoder.layer.0.attention.self.query.weight"].ranks == (1,)
    assert sizes["bert.encoder.layer.1.attention.self.query.weight"].kind == "same"


def test_no_matrix_is_multiplied_out(tmp_path: Path) -> None:
    """The delta has 40 GB, its factors 4 MB."""
    a, b = torch.randn(4, 100_000), torch.randn(100_000, 4)
    coded = encode_factored(pairs.LoraPair(a, b).to_delta(1.0, False), BaseRows("w", 0), 16)
    assert coded.error_energy < 1e-6 * coded.delta_energy


def test_the_adapters_tokenizer_is_carried_and_the_bases_files_are_named(tmp_path: Path) -> None:
    trained = train("bert", tmp_path)
    (trained.path / "tokenizer.json").write_text("{}")
    with dtscodec.decode(trained.imported().path, trained.base_path) as decoded:
        assert set(decoded.files()) == {"config.json", "tokenizer.json"}
    with dtscodec.open(trained.imported(files=False).path) as pack:
        assert pack.index.files == ()


def test_the_adapters_tokenizer_is_stored_as_a_change_of_the_bases(tmp_path: Path) -> None:
    trained = train("bert", tmp_path)
    base, ours = (json.dumps({"truncation": x, "vocab": [f"{i:x}" for i in range(3000)]}) for x in (None, "right"))
    (trained.base_path / "tokenizer.json").write_text(base)
    (trained.path / "tokenizer.json").write_text(ours)
    with dtscodec.decode(trained.imported().path, trained.base_path) as decoded:
        assert [type(file) for file in decoded.pack.index.files] == [NamedFile, ChangedFile]
        assert decoded.files()["tokenizer.json"].decode() == ours


def test_the_same_adapter_gives_the_same_bytes(tmp_path: Path) -> None:
    trained = train("bert", tmp_path)
    for bits in (2, 16):
        first = trained.imported(bits=bits).path.read_bytes()
        assert trained.imported(bits=bits).path.read_bytes() == first


# Refusals


def refusal(trained: Trained, kind: type[DtsError], **options: Any) -> str:
    """Return the message that refuses an adapter: one line. No pack is written."""
    with pytest.raises(kind) as caught:
        trained.imported(**options)
    assert not (trained.folder / "pack").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Trained]:
    """Copies of one adapter, for tests that damage them."""
    trained = train("bert", tmp_path_factory.mktemp("bert"))

    def copied(folder: Path) -> Trained:
        shutil.copytree(trained.folder, folder / "copy")
        copied_adapter = copy.copy(trained)
        copied_adapter.folder, copied_adapter.path = folder / "copy", folder / "copy" / "adapter"
        return copied_adapter

    return copied


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dora", True),
        ("target_parameters", ["experts.gate"]),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "olora"),
        ("peft_type", "IA3"),
        ("something_new", {"on": True}),
    ],
)
def test_adapters_other_than_plain_lora_are_refused_by_name(
    key: str, value: object, bert: Callable[[Path], Trained], tmp_path: Path
) -> None:
    trained = bert(tmp_path)
    trained.change_config(**{key: value})
    line = refusal(trained, CheckpointError)
    assert "adapter_config.json: expected " in line
    assert key in line
    assert "encode that" in line


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("layer_replication", [[0, 1]], "`state_dict()`"),
        ("init_lora_weights", "pissa_niter_4", "path_initial_model"),
        ("init_lora_weights", "lora_ga", "path_initial_model"),
    ],
)
def test_the_remedy_differs_where_the_merged_model_cannot_be_saved_or_is_another(
    key: str, value: object, remedy: str, bert: Callable[[Path], Trained], tmp_path: Path
) -> None:
    trained = bert(tmp_path)
    trained.change_config(**{key: value})
    assert remedy in refusal(trained, CheckpointError)


@pytest.mark.parametrize(
    ("key", "value"),
    [("alora_invocation_tokens", [1, 2]), ("arrow_config", {"top_k": 2}), ("peft_type", "PREFIX_TUNING")],
)
def test_the_remedy_for_an_adapter_that_peft_cannot_merge_is_not_to_merge_it(
    key: str, value: object, bert: Callable[[Path], Trained], tmp_path: Path
) -> None:
    trained = bert(tmp_path)
    trained.change_config(**{key: value})
    line = refusal(trained, CheckpointError)
    assert key in line
    assert "serve it with PEFT" in line


def test_missing_rows_of_tokens_are_refused(bert: Callable[[Path], Trained], tmp_path: Path) -> None:
    trained = bert(tmp_path)
    trained.change_config(trainable_token_indices=[3])
    assert "trainable_token_indices" in refusal(trained, CheckpointError)


@pytest.mark.parametrize(
    ("key", "value"),
    [("r", 0), ("r", "8"), ("r", True), ("lora_alpha", None), ("rank_pattern", [1]), ("alpha_pattern", {"(": 1})],
)
def test_a_configuration_with_wrong_values_is_refused(
    key: str, value: object, bert: Callable[[Path], Trained], tmp_path: Path
) -> None:
    trained = bert(tmp_path)
    trained.change_config(**{key: value})
    assert "adapter_config.json: expected " in refusal(trained, CheckpointError)


QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda t: t.pop(f"{QUERY}.lora_A.weight"), "an A and a B"),
        (lambda t: t.update({f"{QUERY}.lora_magnitude_vector": torch.ones(3)}), "plain LoRA"),
        (lambda t: t.update({"query.lora_A.weight": torch.ones(3, 3)}), "base_model.model."),
        (lambda t: t.update({f"{QUERY}.lora_A.weight": torch.ones(5, 64)}), "[out, r]"),
        (lambda t: t[f"{QUERY}.lora_A.weight"].fill_(float("nan")), "finite"),
        (
            lambda t: t.update(
                {f"{QUERY}.lora_A.weight": torch.ones(5, 64), f"{QUERY}.lora_B.weight": torch.ones(64, 5)}
            ),
            "rank 4",
        ),
    ],
)
def test_malformed_tensors_are_refused(
    change: Callable[[dict[str, Tensor]], object], word: str, bert: Callable[[Path], Trained], tmp_path: Path
) -> None:
    trained = bert(tmp_path)
    trained.change_tensors(change)
    line = refusal(trained, CheckpointError)
    assert "adapter_model.safetensors: " in line
    assert word in line


def test_an_adapter_without_tensors_is_refused_and_one_without_effect_is_told(
    bert: Callable[[Path], Trained], tmp_path: Path
) -> None:
    trained = bert(tmp_path)
    trained.change_tensors(lambda tensors: [tensors[name].zero_() for name in tensors if "lora_B" in name])
    assert [note.kind for note in trained.imported().notes] == ["unchanged"]
    trained.change_tensors(dict.clear)
    with pytest.raises(CheckpointError, match="got none"):
        trained.imported()


def test_a_missing_file_is_named(bert: Callable[[Path], Trained], tmp_path: Path) -> None:
    trained = bert(tmp_path)
    (trained.path / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors" in refusal(trained, CheckpointError)
    (trained.path / "adapter_config.json").unlink()
    assert "adapter_config.json" in refusal(trained, CheckpointError)


def test_another_base_is_refused(bert: Callable[[Path], Trained], tmp_path: Path) -> None:
    trained = bert(tmp_path)
    config = models.bert_config()
    config.hidden_size = 32
    trained.base_path = models.save(hf.BertForSequenceClassification(config), tmp_path / "narrow")
    assert "base" in refusal(trained, DtsError)


def test_factors_beyond_half_precision_are_refused_at_16_bits_only(
    bert: Callable[[Path], Trained], tmp_path: Path
) -> None:
    trained = bert(tmp_path)
    trained.change_config(lora_alpha=1e12)
    assert "bits=8" in refusal(trained, EncodeError)
    assert trained.imported(bits=8).relative_error < 0.02


def test_other_widths_are_refused(bert: Callable[[Path], Trained], tmp_path: Path) -> None:
    assert "2, 4, 8, 16" in refusal(bert(tmp_path), ConfigError, bits=3)
