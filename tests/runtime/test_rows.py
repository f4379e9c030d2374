"""Rows of a batch that are not what tasks were named for: right, or refused; no row silently gets another's task."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import dtscodec
from dtscodec.errors import ModelMismatchError
from dtscodec.runtime.branches.branch_for_layer import branch_class
from tests.support import make_pack


class Served:
    """A model, packs of two tasks that change the chosen layers, and the decoded models."""

    def __init__(self, model: Any, folder: Path, is_changed: Callable[[str], bool] = lambda name: True) -> None:
        self.model: Any = model.eval()
        base = model.state_dict()
        # Tensors of layers that can have a side branch, by their addresses, which tied ones share.
        names = [
            f"{prefix}.{own}" if prefix else own
            for prefix, module in model.named_modules(remove_duplicate=False)
            if branch_class(module) is not None and "relative" not in prefix
            for own in module._parameters
        ]
        changed = {base[name].data_ptr(): base[name].shape for name in names if name in base and is_changed(name)}
        self.packs: dict[str, Path] = {}
        self.decoded: dict[str | None, Any] = {None: copy.deepcopy(model)}
        for seed, task in enumerate(("one", "two")):
            torch.manual_seed(seed)
            deltas = {address: 0.1 * torch.randn(shape) for address, shape in changed.items()}
            fine = {name: tensor + deltas.get(tensor.data_ptr(), 0) for name, tensor in base.items()}
            self.packs[task] = make_pack(base, fine, folder / task, raw=("*",)).path
            self.decoded[task] = copy.deepcopy(model)
            dtscodec.apply_(self.decoded[task], self.packs[task])

    def run(self, tasks: Any, *args: Any, **inputs: Any) -> Any:
        with torch.no_grad(), dtscodec.attach(self.model, self.packs) as attached, attached.serve(tasks):
            return self.model(*args, **inputs)[0]

    def check(self, tasks: list[str | None], *args: Any, **inputs: Any) -> None:
        ours = self.run(tasks, *args, **inputs)
        with torch.no_grad():
            for row, task in enumerate(tasks):
                true = self.decoded[task](*args, **inputs)[0][row]
                assert float((ours[row] - true).abs().max()) <= 1e-5 * float(true.abs().max()), (row, task)

    def check_one(self, task: str, *args: Any, **inputs: Any) -> None:
        with torch.no_grad():
            assert torch.allclose(self.run(task, *args, **inputs), self.decoded[task](*args, **inputs)[0], atol=1e-5)


SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64,
}  # fmt: skip


def tokens(rows: int, count: int) -> Tensor:
    return torch.arange(rows * count).reshape(rows, count) % 50 + 5


def gemma3() -> Any:
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**SMALL, head_dim=16, sliding_window=4))


def bart() -> Any:
    config = hf.BartConfig(
        vocab_size=64, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
        scale_embedding=True,
    )  # fmt: skip
    return hf.BartForConditionalGeneration(config)


def qwen2_vl() -> Any:
    config = hf.Qwen2VLConfig(
        text_config={**SMALL, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
        vision_config={"embed_dim": 32, "depth": 1, "num_heads": 2, "mlp_ratio": 1, "hidden_size": 32, "patch_size": 4},
        image_token_id=60, video_token_id=61, vision_start_token_id=62, vision_end_token_id=63,
    )  # fmt: skip
    return hf.Qwen2VLForConditionalGeneration(config)


def images(rows: int) -> dict[str, Tensor]:
    """A row of tokens with an image of 4 x 4 patches, which are merged to 4 tokens, for each request."""
    ids = tokens(rows, 10)
    ids[:, 1], ids[:, 2:6], ids[:, 6] = 62, 60, 63
    torch.manual_seed(3)
    return {
        "input_ids": ids,
        "mm_token_type_ids": (ids == 60).long(),
        "pixel_values": torch.randn(rows * 16, 3 * 2 * 4 * 4),
        "image_grid_thw": torch.tensor([[1, 4, 4]] * rows),
    }


@pytest.mark.parametrize("make", [gemma3, bart])
def test_each_row_gets_its_task_even_if_tokens_are_as_many_as_rows(tmp_path: Path, make: Any) -> None:
    served = Served(make(), tmp_path)
    served.check(["one", None, "two", "one"], input_ids=tokens(4, 4))
    served.check(["one", None, "two"], input_ids=tokens(3, 7))


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("make", [gemma3, bart])
def test_one_row_for_several_tasks_is_refused_where_it_enters_the_model(
    tmp_path: Path, make: Any, by_name: bool
) -> None:
    served = Served(make(), tmp_path)
    args, inputs = ((), {"input_ids": tokens(1, 6)}) if by_name else ((tokens(1, 6),), {})
    with pytest.raises(ModelMismatchError, match=r"the model: .* 3 rows, .* got one row: .*; repeat the row"):
        served.run(["one", "two", None], *args, **inputs)
    served.check(["one", "two", None], tokens(1, 6).expand(3, 6))


def test_another_number_of_rows_is_refused(tmp_path: Path) -> None:
    served = Served(gemma3(), tmp_path)
    with pytest.raises(ModelMismatchError, match=r"embed_tokens.weight: expected a first dimension of 3 .* as many"):
        served.run(["one", "two", None], tokens(2, 6))


# Images


def test_several_tasks_of_which_one_changes_the_vision_tower_are_refused_if_it_runs(tmp_path: Path) -> None:
    served = Served(qwen2_vl(), tmp_path)
    for tasks in (["one", "two"], ["one", None]):
        with pytest.raises(ModelMismatchError, match=r"visual\..*got one of images or sounds.*; give all requests the"):
            served.run(tasks, **images(2))


def test_one_task_for_all_may_change_the_vision_tower(tmp_path: Path) -> None:
    served = Served(qwen2_vl(), tmp_path)
    served.check(["two", "two"], **images(2))
    served.check(["one"], **images(1))


def test_several_tasks_may_change_the_language_model_beside_images(tmp_path: Path) -> None:
    served = Served(qwen2_vl(), tmp_path, lambda name: "visual" not in name)
    served.check(["one", None, "two"], **images(3))


def test_several_tasks_without_images_may_have_vision_towers_of_their_own(tmp_path: Path) -> None:
    served = Served(qwen2_vl(), tmp_path)
    served.check(["one", None, "two"], input_ids=tokens(3, 7))


def test_a_projector_between_images_and_language_model_has_no_rows_of_requests(tmp_path: Path) -> None:
    config = hf.LlavaConfig(
        text_config={**SMALL, "model_type": "llama"},
        vision_config={
            "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 8, "patch_size": 4,
        },
        image_token_index=60,
    )  # fmt: skip
    served = Served(hf.LlavaForConditionalGeneration(config), tmp_path, lambda name: "projector" in name)
    ids = tokens(2, 12)
    ids[0, 2:10] = 60  # Both images belong to the first request.
    inputs = {"input_ids": ids, "pixel_values": torch.randn(2, 3, 8, 8)}
    with pytest.raises(ModelMismatchError, match=r"multi_modal_projector.*images or sounds"):
        served.run(["one", "two"], **inputs)
    served.check(["two", "two"], **inputs)


# Layers that get [tokens, requests, features]


class Transposing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.second(self.first(x).transpose(0, 1)).transpose(0, 1),)


class Encoder(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=batch_first)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.layers(x),)


@pytest.mark.parametrize(
    ("make", "count"), [(Transposing, 3), (lambda: Encoder(False), 3), (lambda: Encoder(False), 5)]
)
def test_layers_that_get_the_tokens_first_are_refused_for_several_tasks(tmp_path: Path, make: Any, count: int) -> None:
    served = Served(make(), tmp_path, lambda name: "out_proj" not in name)
    with pytest.raises(ModelMismatchError, match=r"expected .*requests.*; give all requests the same"):
        served.run(["one", "two", "one"], torch.randn(3, count, 16))
    served.check_one("two", torch.randn(3, count, 16))


def test_an_encoder_of_torch_that_gets_the_requests_first_serves_without_its_fast_path(tmp_path: Path) -> None:
    served = Served(Encoder(True), tmp_path, lambda name: "out_proj" not in name)
    served.check(["one", None, "two"], torch.randn(3, 3, 16))


def test_a_model_of_transformers_that_gets_the_tokens_first_is_refused(tmp_path: Path) -> None:
    model = hf.XLNetLMHeadModel(hf.XLNetConfig(vocab_size=64, d_model=32, n_layer=1, n_head=2, d_inner=48))
    served = Served(model, tmp_path)
    for count in (3, 5):
        with pytest.raises(ModelMismatchError, match=r"expected .*requests.*; give all requests the same"):
            served.run(["one", "two", "one"], tokens(3, count))


# Rows that models make


def test_windows_of_an_image_are_no_requests(tmp_path: Path) -> None:
    config = hf.SwinConfig(image_size=16, patch_size=2, embed_dim=16, depths=[1], num_heads=[2], window_size=4)
    served = Served(hf.SwinForImageClassification(config), tmp_path)
    with pytest.raises(ModelMismatchError, match=r"expected a first dimension of 3 requests, .* or one for all"):
        served.run(["one", "two", None], pixel_values=torch.randn(3, 3, 16, 16))
    served.check_one("two", pixel_values=torch.randn(3, 3, 16, 16))


def generated(model: Any, ids: Tensor, **settings: Any) -> Tensor:
    make: Any = hf.GenerationConfig
    config = make(
        max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=2, **settings,
    )  # fmt: skip
    found: Tensor = model.generate(ids, generation_config=config)
    return found


def test_beams_are_rows_of_a_decoder(tmp_path: Path) -> None:
    served = Served(gemma3(), tmp_path)
    with dtscodec.attach(served.model, served.packs) as attached:
        with attached.serve(["one", "two"]), pytest.raises(ModelMismatchError, match=r"beams and sequences"):
            generated(served.model, tokens(2, 5), num_beams=2)
        with attached.serve(["one", "one", "two", "two"]):
            ours = generated(served.model, tokens(2, 5), num_beams=2)
    for row, task in enumerate(("one", "two")):
        assert torch.equal(ours[row], generated(served.decoded[task], tokens(2, 5), num_beams=2)[row])


def test_beams_of_a_model_with_an_encoder_take_one_task(tmp_path: Path) -> None:
    served = Served(bart(), tmp_path)
    with dtscodec.attach(served.model, served.packs) as attached:
        for tasks in (["one", "two"], ["one", "one", "two", "two"]):
            with attached.serve(tasks), pytest.raises(ModelMismatchError, match=r"or one for all"):
                generated(served.model, tokens(2, 5), num_beams=2)
        with attached.serve("two"):
            ours = generated(served.model, tokens(2, 5), num_beams=2)
        with attached.serve(["one", "two"]):
            greedy = generated(served.model, tokens(2, 5))
    assert torch.equal(ours, generated(served.decoded["two"], tokens(2, 5), num_beams=2))
    for row, task in enumerate(("one", "two")):
        assert torch.equal(greedy[row], generated(served.decoded[task], tokens(2, 5))[row])
