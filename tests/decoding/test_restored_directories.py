"""Directories that decode restores are those that transformers, diffusers and sentence-transformers load."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import dtscodec
from dtscodec import EncodeConfig, Size
from dtscodec.checkpoints.open import open_checkpoint

EXACT = EncodeConfig(raw=("*",))


def perturb(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 1e-2)


def restore(tmp_path: Path, config: EncodeConfig = EXACT, **options: Any) -> Path:
    """Encode ``fine`` against ``base``, and decode it into a directory."""
    dtscodec.encode(tmp_path / "base", tmp_path / "fine", tmp_path / "pack", config)
    with dtscodec.decode(tmp_path / "pack", tmp_path / "base") as decoded:
        decoded.save(tmp_path / "restored", **options)
    return tmp_path / "restored"


def assert_equal(a: torch.nn.Module, b: torch.nn.Module) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def weights(directory: Path) -> list[str]:
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if ".safetensors" in p.name)


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("shard", ["10GB", "20KB"])
def test_a_component_of_diffusers_is_loaded_as_it_was(tmp_path: Path, variant: str | None, shard: str) -> None:
    UNet2DModel = pytest.importorskip("diffusers").UNet2DModel
    torch.manual_seed(0)
    model = UNet2DModel(8, 3, 3, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
                        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                        up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=8)  # fmt: skip
    for name in ("base", "fine"):
        model.save_pretrained(tmp_path / name, variant=variant, max_shard_size=shard)
        perturb(model)
    out = restore(tmp_path, shard_bytes=10**10 if shard == "10GB" else 20_000)
    assert weights(out)[0].startswith("diffusion_pytorch_model" + (f".{variant}" if variant else "") + (
        ".safetensors" if shard == "10GB" else "-00001-of-0"))  # fmt: skip
    assert_equal(*(UNet2DModel.from_pretrained(path, variant=variant) for path in (out, tmp_path / "fine")))


def test_an_autoencoder_of_diffusers_survives_a_lossy_pack(tmp_path: Path) -> None:
    AutoencoderKL = pytest.importorskip("diffusers").AutoencoderKL
    torch.manual_seed(0)
    model = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=2, layers_per_block=1)
    for name in ("base", "fine"):
        model.save_pretrained(tmp_path / name, safe_serialization=name == "fine")
        perturb(model)
    assert "diffusion_pytorch_model.bin" in [p.name for p in (tmp_path / "base").iterdir()]
    out = restore(tmp_path, EncodeConfig(target=Size.parse("60%")))
    assert weights(out) == ["diffusion_pytorch_model.safetensors"]
    fine, restored = (AutoencoderKL.from_pretrained(path) for path in (tmp_path / "fine", out))
    image = torch.randn(1, 3, 8, 8)
    wanted = fine(image).sample
    assert (restored(image).sample - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.parametrize("variant", [None, "bf16"])
@pytest.mark.parametrize("shard", ["10GB", "20KB"])
def test_a_model_of_transformers_is_loaded_as_it_was(tmp_path: Path, variant: str | None, shard: str) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                         num_attention_heads=2, num_key_value_heads=1))  # fmt: skip
    for name in ("base", "fine"):
        model.save_pretrained(tmp_path / name, variant=variant, max_shard_size=shard)
        perturb(model)
    out = restore(tmp_path, shard_bytes=10**10 if shard == "10GB" else 20_000)
    assert ("index" in " ".join(weights(out))) == (shard != "10GB")
    assert_equal(*(Qwen2ForCausalLM.from_pretrained(path, variant=variant) for path in (out, tmp_path / "fine")))


def test_files_of_torch_are_restored_as_safetensors(tmp_path: Path) -> None:
    for name, value in (("base", 0.0), ("fine", 1.0)):
        (tmp_path / name).mkdir()
        torch.save({"w": torch.full((3,), value)}, tmp_path / name / "pytorch_model.bin")
    assert weights(restore(tmp_path)) == ["model.safetensors"]


def test_a_stale_file_is_taken_as_transformers_takes_it_and_the_index_on_request(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    model = GPT2Model(GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=1, n_head=2))
    model.save_pretrained(tmp_path / "base")
    perturb(model)
    model.save_pretrained(tmp_path / "fine", max_shard_size="20KB")
    shutil.copy(tmp_path / "base/model.safetensors", tmp_path / "fine")
    report = dtscodec.encode(tmp_path / "base", tmp_path / "fine", tmp_path / "pack", EXACT)
    with dtscodec.decode(tmp_path / "pack", tmp_path / "base") as decoded:
        loaded = GPT2Model.from_pretrained(tmp_path / "fine").state_dict()
        assert all(torch.equal(decoded[name], loaded[name]) for name in decoded)
    (note,) = [note for note in report.notes if note.kind == "passed-over"]
    assert note.names == ("model.safetensors.index.json",)
    # The remedy that the note names works.
    index = tmp_path / "fine/model.safetensors.index.json"
    report = dtscodec.encode(tmp_path / "base", index, tmp_path / "pack", EXACT, force=True)
    assert not [note for note in report.notes if note.kind == "passed-over"]
    with dtscodec.decode(tmp_path / "pack", tmp_path / "base") as decoded:
        assert all(torch.equal(decoded[name], tensor) for name, tensor in model.state_dict().items())


def test_both_inputs_have_a_note_of_their_own(tmp_path: Path) -> None:
    for name in ("base", "fine"):
        (tmp_path / name).mkdir()
        for file in ("model.safetensors", "model.fp16.safetensors", "consolidated.safetensors"):
            from safetensors.torch import save_file

            save_file({"w": torch.zeros(2)}, tmp_path / name / file)
    report = dtscodec.encode(tmp_path / "base", tmp_path / "fine", tmp_path / "pack", EXACT)
    base, fine = [note.text for note in report.notes if note.kind == "passed-over"]
    assert base.startswith("the base was read from model.safetensors; passed over: consolidated.safetensors (")
    assert fine.startswith("the fine-tune was read from model.safetensors; passed over: ")
    assert "\n" not in base + fine


def test_the_configuration_of_an_adapter_is_not_restored(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for name in ("base", "fine"):
        (tmp_path / name).mkdir()
        save_file({"w": torch.zeros(2)}, tmp_path / name / "model.safetensors")
    (tmp_path / "fine/adapter_config.json").write_text("{}")
    (tmp_path / "fine/config.json").write_text("{}")
    assert sorted(path.name for path in restore(tmp_path).iterdir()) == ["config.json", "model.safetensors"]


# sentence-transformers


def sentence_transformer(path: Path, kind: str) -> Any:
    """A tiny model of sentence-transformers, saved, of which a part is in folders."""
    from transformers import BertConfig, BertModel

    tokenizer = pytest.importorskip("transformers").BertTokenizerFast
    sentence_transformers = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    part = path.parent / "bert"
    if not part.exists():
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                             intermediate_size=64)).save_pretrained(part)  # fmt: skip
        letters = [chr(97 + i) for i in range(26)]
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{x}" for x in letters)]
        (part / "vocab.txt").write_text("\n".join(words))
        tokenizer(str(part / "vocab.txt")).save_pretrained(part)
    torch.manual_seed(1)
    bert = modules.Transformer(str(part))
    match kind:
        case "dense":
            parts = [bert, modules.Pooling(32), modules.Dense(32, 16), modules.Normalize()]
        case "router":
            static = modules.StaticEmbedding(bert.tokenizer.backend_tokenizer, embedding_dim=32)
            parts = [modules.Router.for_query_document([static], [bert, modules.Pooling(32)]), modules.Dense(32, 16)]
        case _:
            parts = [modules.StaticEmbedding(bert.tokenizer.backend_tokenizer, embedding_dim=32)]
    return sentence_transformers.SentenceTransformer(modules=parts, device="cpu")


@pytest.mark.parametrize(
    ("kind", "folders"),
    [
        ("dense", ("2_Dense",)),
        ("router", ("1_Dense", "document_0_Transformer", "query_0_StaticEmbedding")),
        ("static", ()),
    ],
)
def test_modules_in_folders_travel(tmp_path: Path, kind: str, folders: tuple[str, ...]) -> None:
    SentenceTransformer = pytest.importorskip("sentence_transformers").SentenceTransformer
    model = sentence_transformer(tmp_path / "base", kind)
    model.save_pretrained(str(tmp_path / "base"), create_model_card=False)
    perturb(model)
    model.save_pretrained(str(tmp_path / "fine"), create_model_card=False)
    with open_checkpoint(tmp_path / "fine") as checkpoint:
        assert checkpoint.folders == folders
        assert checkpoint.passed_over == ()
    out = restore(tmp_path)
    assert weights(out) == weights(tmp_path / "fine")
    fine, restored = (SentenceTransformer(str(path), device="cpu") for path in (tmp_path / "fine", out))
    assert_equal(restored, fine)
    for task in ("query", "document"):
        encode = {"query": "encode_query", "document": "encode_document"}[task]
        assert (getattr(restored, encode)(["a b c"]) == getattr(fine, encode)(["a b c"])).all()


def test_a_lossy_pack_of_a_module_in_a_folder_is_near(tmp_path: Path) -> None:
    SentenceTransformer = pytest.importorskip("sentence_transformers").SentenceTransformer
    model = sentence_transformer(tmp_path / "base", "dense")
    model.save_pretrained(str(tmp_path / "base"), create_model_card=False)
    perturb(model)
    model.save_pretrained(str(tmp_path / "fine"), create_model_card=False)
    out = restore(tmp_path, EncodeConfig(target=Size.parse("60%")))
    fine, restored = (
        SentenceTransformer(str(path), device="cpu").encode(["hello"]) for path in (tmp_path / "fine", out)
    )
    assert abs(restored - fine).max() < 0.02


def test_weights_of_torch_in_a_folder_travel_as_safetensors(tmp_path: Path) -> None:
    SentenceTransformer = pytest.importorskip("sentence_transformers").SentenceTransformer
    model = sentence_transformer(tmp_path / "base", "dense")
    model.save_pretrained(str(tmp_path / "base"), create_model_card=False)
    perturb(model)
    model.save_pretrained(str(tmp_path / "fine"), create_model_card=False)
    (tmp_path / "fine/2_Dense/model.safetensors").unlink()
    torch.save(model[2].state_dict(), tmp_path / "fine/2_Dense/pytorch_model.bin")
    assert_equal(SentenceTransformer(str(restore(tmp_path)), device="cpu"), model)


def test_in_a_single_file_tensors_of_folders_have_their_full_names(tmp_path: Path) -> None:
    model = sentence_transformer(tmp_path / "base", "dense")
    for name in ("base", "fine"):
        model.save_pretrained(str(tmp_path / name), create_model_card=False)
        perturb(model)
    dtscodec.encode(tmp_path / "base", tmp_path / "fine", tmp_path / "pack", EXACT)
    with dtscodec.decode(tmp_path / "pack", tmp_path / "base") as decoded:
        decoded.save(tmp_path / "one.safetensors")
    with open_checkpoint(tmp_path / "one.safetensors") as one, open_checkpoint(tmp_path / "fine") as fine:
        assert one.specs == fine.specs
        assert "2_Dense/linear.weight" in one.specs
    comparison = dtscodec.compare(tmp_path / "pack", tmp_path / "fine", tmp_path / "base")
    assert len(comparison.tensors) == len(fine.specs)
