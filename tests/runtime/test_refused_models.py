"""Models whose tensors are not where the fine-tune has them: one line with the cause, and a remedy that works."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch.nn.utils.prune import random_unstructured

import dtscodec
from dtscodec.errors import BaseMismatchError, CheckpointError, ModelMismatchError
from tests.models import make_pair, perturb, save
from tests.runtime.helpers import same_state
from tests.support import make_pack

SETTINGS: dict[str, Any] = {"target": dtscodec.RankShare(0.2)}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    pair = make_pair("llama")
    save(pair.base, folder / "base")
    save(pair.fine, folder / "fine")
    make_pack(folder / "base", folder / "fine", folder / "pack", **SETTINGS)
    return folder


def load(folder: Path, **how: Any) -> Any:
    return hf.LlamaForCausalLM.from_pretrained(folder / "base", **how)


def with_adapter(folder: Path) -> Any:
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for a name that it deprecates.
        return peft.get_peft_model(load(folder), peft.LoraConfig(target_modules=["q_proj"]))


def parametrized(folder: Path) -> Any:
    model = load(folder)
    torch.nn.utils.parametrizations.weight_norm(model.model.layers[0].mlp.up_proj)
    return model


def pruned(folder: Path) -> Any:
    model = load(folder)
    random_unstructured(model.model.layers[0].mlp.up_proj, "weight", amount=0.5)  # type: ignore[no-untyped-call]
    return model


def on_meta(folder: Path) -> Any:
    with torch.device("meta"):
        return hf.LlamaForCausalLM(hf.AutoConfig.from_pretrained(folder / "base"))


def quantized(folder: Path) -> Any:
    pytest.importorskip("bitsandbytes")
    return load(folder, quantization_config=four_bits(), device_map="cpu")


def four_bits() -> Any:
    return hf.BitsAndBytesConfig(load_in_4bit=True)  # type: ignore[no-untyped-call]


def of_another_kind(folder: Path) -> Any:
    return make_pair("gpt2").base


MODELS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "adapter": (with_adapter, "the layer has .*base_layer.weight; use the pack before adapters"),
    "parametrized": (parametrized, "the layer has .*parametrizations.*; use the pack before"),
    "pruned": (pruned, "the layer has .*weight_orig; use the pack before"),
    "on meta": (on_meta, "expected a weight in memory, .*; load the weights first"),
    "quantized": (quantized, "got a Params4bit.*; load the model without quantization, or pass"),
    "another kind": (of_another_kind, "got a GPT2LMHeadModel with 0 of its .*; load a model of the fine-tune's kind"),
}


@pytest.mark.parametrize(("make", "message"), MODELS.values(), ids=MODELS)
def test_the_cause_is_named(llama: Path, make: Callable[[Path], Any], message: str) -> None:
    model = make(llama)
    with pytest.raises(ModelMismatchError, match=message) as error:
        dtscodec.apply_(model, llama / "pack")
    assert "\n" not in str(error.value)
    with pytest.raises(ModelMismatchError, match=message):
        dtscodec.Switcher(model, packs={"one": llama / "pack"})


def test_a_quantized_model_of_the_fine_tune_is_loaded_as_from_its_decoded_checkpoint(llama: Path) -> None:
    pytest.importorskip("bitsandbytes")
    settings = four_bits()
    ours = dtscodec.from_pretrained(llama / "base", llama / "pack", quantization_config=settings, device_map="cpu")
    with dtscodec.decode(llama / "pack", llama / "base") as decoded:
        decoded.save(llama / "decoded")
    kind = hf.LlamaForCausalLM
    theirs = kind.from_pretrained(llama / "decoded", quantization_config=settings, device_map="cpu")
    assert same_state(ours.state_dict(), theirs.state_dict())


def test_base_tensors_that_the_model_leaves_out_need_the_base(llama: Path, tmp_path: Path) -> None:
    """As the layers of DeepSeek-V3 for several tokens at once, which transformers does not load."""
    states = {name: load(llama).state_dict() for name in ("base", "fine")}
    states["fine"] |= {name: one + 0.01 for name, one in states["fine"].items() if "norm" in name}
    for value, state in enumerate(states.values()):
        state["model.layers.7.eh_proj.weight"] = torch.full((8, 8), float(value))
    make_pack(states["base"], states["fine"], tmp_path / "pack", **SETTINGS)
    model = load(llama)
    model._keys_to_ignore_on_load_unexpected = [r"model\.layers\.7"]
    with pytest.raises(BaseMismatchError, match=r"'model\.layers\.7.eh_proj.weight'.*; give the base as `base`"):
        dtscodec.apply_(model, tmp_path / "pack")
    dtscodec.apply_(model, tmp_path / "pack", states["base"])
    with dtscodec.decode(tmp_path / "pack", states["base"]) as decoded:
        assert all(torch.equal(one, decoded[name]) for name, one in model.state_dict().items())


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories of a sentence-transformers pipeline with a dense layer: base, fine-tune, pack, decoded."""
    library = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    folder = tmp_path_factory.mktemp("pipeline")
    save(make_pair("bert").base, folder / "bert")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "word"]))
    hf.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    parts = [modules.Transformer(str(folder / "bert")), modules.Pooling(64), modules.Dense(64, 16)]
    base = library.SentenceTransformer(modules=parts, device="cpu")
    base.save(str(folder / "base"))
    fine = copy.deepcopy(base)
    perturb(fine, 3)
    fine.save(str(folder / "fine"))
    make_pack(folder / "base", folder / "fine", folder / "pack", **SETTINGS)
    with dtscodec.decode(folder / "pack", folder / "base") as decoded:
        decoded.save(folder / "decoded")
    return folder


def test_a_pipeline_of_sentence_transformers_is_switched_as_a_whole(pipeline: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    model, plain, fine = (
        library.SentenceTransformer(str(pipeline / name), device="cpu") for name in ("base", "base", "decoded")
    )
    switcher = dtscodec.Switcher(model, packs={"one": pipeline / "pack"})
    switcher.activate("one")
    assert same_state(model.state_dict(), fine.state_dict())
    switcher.deactivate()
    assert same_state(model.state_dict(), plain.state_dict())


def test_the_transformer_of_a_pipeline_alone_is_refused(pipeline: Path) -> None:
    model = hf.BertModel.from_pretrained(pipeline / "base")
    with pytest.raises(ModelMismatchError, match=r"pipeline with the module 2_Dense, got a BertModel; pass the"):
        dtscodec.apply_(model, pipeline / "pack", pipeline / "base")
    with pytest.raises(CheckpointError, match="weights of its own in 2_Dense; decode it"):
        dtscodec.from_pretrained(pipeline / "base", pipeline / "pack")
