"""The judge of decoded models gives each text its own figures, whatever batch it is in."""

from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.common.judge import Judge
from benchmarks.demo.data import Example

LENGTHS = [7, 1, 5, 3, 2, 9, 4]


class Model:
    """Its logits are the text's first token by a weight, and the second class's constant."""

    def load_state_dict(self, state: dict[str, torch.Tensor], strict: bool) -> None:
        self._weight = state["w"]

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        first = input_ids[:, 0].float() * self._weight
        return SimpleNamespace(logits=torch.stack([first, torch.full_like(first, 3.5)], dim=1))


def judge(few: int) -> Judge:
    encodings = [SimpleNamespace(ids=[number, *[0] * (length - 1)]) for number, length in enumerate(LENGTHS)]
    tokens: Any = SimpleNamespace(encode_batch=lambda texts: encodings)
    model: Any = Model()
    examples = [Example(text="", label=number % 2) for number in range(len(LENGTHS))]
    return Judge(model, tokens, examples, {"w": torch.ones(())}, few)


def test_predictions_are_in_the_order_of_the_texts() -> None:
    assert judge(3).logits({"w": torch.ones(())})[:, 0].tolist() == list(range(7))


def test_the_first_few_texts_can_be_judged_alone() -> None:
    assert judge(3).logits({"w": torch.ones(())}, 3)[:, 0].tolist() == [0, 1, 2]


def test_agreement_is_with_the_fine_tune_and_accuracy_with_the_labels() -> None:
    same, other = judge(0).verdict({"w": torch.ones(())}), judge(0).verdict({"w": torch.zeros(())})
    assert same.figures.agreement == 1
    assert same.figures.kl == 0
    assert same.right.tolist() == [False, True, False, True, True, False, True]
    assert other.agrees.tolist() == [True] * 4 + [False] * 3
