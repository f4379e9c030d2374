"""The callback for transformers' `Trainer`: weights as they were at each save, in order, whatever the thread does."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import dtscodec
from dtscodec.errors import DtsError
from dtscodec.series.trainer_callback import SeriesCallback
from tests.models import bert_config


class Recorder(transformers.TrainerCallback):
    """Keeps the weights of every step."""

    def __init__(self) -> None:
        self.weights: dict[int, dict[str, torch.Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        copied = {name: weight.detach().clone() for name, weight in objects["model"].state_dict().items()}
        self.weights[state.global_step] = copied


def train(tmp_path: Path, callback: SeriesCallback) -> Recorder:
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(bert_config())
    texts = [{"input_ids": torch.randint(3, 100, (8,)), "labels": i % 2} for i in range(24)]
    arguments = transformers.TrainingArguments(
        str(tmp_path / "run"), max_steps=6, per_device_train_batch_size=4, learning_rate=1e-3, use_cpu=True,
        report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    recorder = Recorder()
    transformers.Trainer(model, arguments, train_dataset=texts, callbacks=[recorder, callback]).train()
    return recorder


def test_each_save_is_what_the_weights_were(tmp_path: Path) -> None:
    recorder = train(tmp_path, SeriesCallback(tmp_path / "series", every=2))
    series = dtscodec.Series(tmp_path / "series")
    assert [step.step for step in series.steps] == [2, 4, 6]
    for step in series.steps:
        with series.decode(step.step) as decoded:
            assert decoded.keys() == recorder.weights[step.step].keys()
            assert all(torch.equal(decoded[name], weight) for name, weight in recorder.weights[step.step].items())


def test_the_state_of_the_optimizer_is_saved_when_asked_for(tmp_path: Path) -> None:
    train(tmp_path, SeriesCallback(tmp_path / "series", every=3, optimizer=True))
    with dtscodec.Series(tmp_path / "series").decode(6) as decoded:
        saved = {name.rsplit(".", 1)[-1] for name in decoded if name.startswith("optimizer.")}
    assert {"exp_avg", "exp_avg_sq"} <= saved


def test_an_error_of_the_thread_reaches_the_training(tmp_path: Path) -> None:
    callback = SeriesCallback(tmp_path / "series")
    (tmp_path / "series").write_text("a file in its place")
    with pytest.raises((DtsError, OSError)):
        train(tmp_path, callback)
