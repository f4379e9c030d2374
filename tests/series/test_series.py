"""Series: each step bit for bit, published whole, extracted by a bounded chain, pruned and followed."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import dtscodec
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.errors import CheckpointError, ConfigError, DtsError, OutputError
from dtscodec.files.directory_lock import directory_lock
from dtscodec.series.follow import follow_checkpoint, follow_model
from dtscodec.series.prune import prune
from dtscodec.series.series import MAX_LINKS
from dtscodec.series.series_index import read_series_index

State = dict[str, torch.Tensor]


def save_of(step: int) -> State:
    """The weights of a training step: a walk of small changes."""
    generator = torch.Generator().manual_seed(0)
    weights = {"w": torch.randn(90, 70, generator=generator), "b": torch.randn(70, generator=generator)}
    for _ in range(step):
        for weight in weights.values():
            changed = torch.rand(weight.shape, generator=generator) < 0.1
            weight.add_(changed * 1e-3 * torch.randn(weight.shape, generator=generator))
    return {name: weight.bfloat16() for name, weight in weights.items()}


def write(path: Path, step: int) -> Path:
    path.mkdir()
    save_file(save_of(step), path / "model.safetensors", {"step": str(step)})
    (path / "config.json").write_text(f'{{"model_type": "bert", "step": {step}}}')
    return path


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.fixture
def saves(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / f"checkpoint-{step}", step) for step in range(12)]


@pytest.fixture(params=["alone", "on a base"])
def series(request: pytest.FixtureRequest, saves: list[Path], tmp_path: Path) -> dtscodec.Series:
    found = dtscodec.Series(tmp_path / "series")
    base = saves[0] if request.param == "on a base" else None
    for step, save in enumerate(saves):
        found.append(save, step=10 * step, base=base)
    return found


def test_each_step_is_restored_byte_for_byte(series: dtscodec.Series, saves: list[Path], tmp_path: Path) -> None:
    for step, save in enumerate(saves):
        with series.decode(10 * step) as decoded:
            decoded.save(tmp_path / f"back-{step}")
        assert content(tmp_path / f"back-{step}") == content(save)


def test_no_step_is_far_from_an_anchor(series: dtscodec.Series) -> None:
    assert max(series.index.depth(step) for step in series.steps) == MAX_LINKS
    # A new anchor is made only where it costs about as much as a link: on a base that is near.
    assert series.index.base is not None or [step.step for step in series.steps if step.is_anchor] == [0]


def test_links_are_small(series: dtscodec.Series) -> None:
    raw = sum(weight.nbytes for weight in save_of(0).values())
    assert all(step.size < 0.35 * raw for step in series.steps if not step.is_anchor)


def test_numbers_ascend_and_a_base_is_given_once(series: dtscodec.Series, saves: list[Path]) -> None:
    with pytest.raises(ConfigError):
        series.append(saves[3], step=110)
    with pytest.raises(ConfigError):
        series.append(saves[3], base=saves[5])
    with pytest.raises(ConfigError):
        series.append(saves[3], config=dtscodec.EncodeConfig())
    with pytest.raises(CheckpointError):
        series.decode(5)
    assert series.append(saves[3]).step == 111


def test_the_checkpoint_before_saves_its_decoding_and_is_checked(saves: list[Path], tmp_path: Path) -> None:
    one, other = dtscodec.Series(tmp_path / "one"), dtscodec.Series(tmp_path / "other")
    for step, save in enumerate(saves[:4]):
        one.append(save)
        other.append(save, previous=saves[step - 1] if step else None)
    assert one.steps == other.steps
    with pytest.raises(CheckpointError):
        other.append(saves[5], previous=saves[0])
    assert other.steps == one.steps


def test_a_second_writer_is_refused(series: dtscodec.Series, saves: list[Path]) -> None:
    with directory_lock(Path(series.directory)), pytest.raises(OutputError, match="writer"):
        series.append(saves[1])


def test_readers_see_new_steps_after_a_refresh(series: dtscodec.Series, saves: list[Path]) -> None:
    reader = dtscodec.Series(series.directory)
    added = series.append(saves[1])
    assert reader.steps == series.steps[:-1]
    reader.refresh()
    assert reader.steps[-1] == added


@pytest.mark.parametrize("gone", [[0], [0, 10, 20], [10, 30, 50, 70], [110], [0, 20, 40, 60, 80, 90, 100]])
def test_steps_that_stay_are_bit_for_bit_the_same(series: dtscodec.Series, saves: list[Path], gone: list[int]) -> None:
    prune(series, gone)
    assert [step.step for step in series.steps] == [10 * i for i in range(12) if 10 * i not in gone]
    for step in series.steps:
        assert series.index.depth(step) <= MAX_LINKS
        with series.decode(step.step) as decoded, open_checkpoint(saves[step.step // 10]) as save:
            assert all(np.array_equal(decoded.read(name), save.read(name)) for name in decoded)
    listed = {step.file for step in series.steps}
    assert {name for name in os.listdir(series.directory) if name.startswith("step-")} == listed
    with pytest.raises(CheckpointError):
        prune(series, [step.step for step in series.steps])


def test_a_damaged_index_or_pack_is_an_error(series: dtscodec.Series) -> None:
    path = Path(series.directory) / series.steps[1].file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DtsError), series.decode(20) as decoded:
        decoded.save(Path(series.directory).parent / "out")
    index = Path(series.directory) / "series.json"
    for text in ("", "[]", '{"version": 2, "steps": []}', index.read_text().replace('"base": 0', '"base": 7')):
        index.write_text(text)
        with pytest.raises(CheckpointError):
            read_series_index(Path(series.directory))


def test_a_local_checkpoint_follows(series: dtscodec.Series, saves: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "live"
    for number in (20, 30, 110, 50):
        applied = follow_checkpoint(series, out, number)
        assert applied is not None
        assert applied.step == number
        assert content(out) == content(saves[number // 10])
    assert follow_checkpoint(series, out, 50) is None
    # One that is of no step is replaced.
    save_file({"w": torch.zeros(3)}, out / "model.safetensors")
    follow_checkpoint(series, out, 50)
    assert content(out) == content(saves[5])


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name, weight in save_of(0).items():
            self.register_parameter(name, torch.nn.Parameter(weight))


def test_a_running_model_follows_in_place(series: dtscodec.Series) -> None:
    model = Model()
    memory = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    for number in (20, 30, 110, 50):
        follow_model(series, model, number)
        expected = save_of(number // 10)
        assert all(torch.equal(parameter, expected[name]) for name, parameter in model.named_parameters())
    assert follow_model(series, model, 50) is None
    assert memory == {name: parameter.data_ptr() for name, parameter in model.named_parameters()}


def _write_on(directory: Path, saves: list[Path]) -> None:
    series = dtscodec.Series(directory)
    for save in saves[len(series.steps) :]:
        series.append(save)


def test_a_writer_that_is_killed_anywhere_goes_on(saves: list[Path], tmp_path: Path) -> None:
    """kill -9 at random moments: nothing listed is lost, and in the end the bytes are the same."""
    _write_on(tmp_path / "whole", saves)
    context = multiprocessing.get_context("fork")
    moments = random.Random(0)
    for _ in range(20):
        writer = context.Process(target=_write_on, args=(tmp_path / "killed", saves))
        writer.start()
        time.sleep(moments.uniform(0.02, 0.4))
        if writer.pid and writer.is_alive():
            os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        for step in dtscodec.Series(tmp_path / "killed").steps:
            assert (tmp_path / "killed" / step.file).stat().st_size == step.size
    _write_on(tmp_path / "killed", saves)
    ours, theirs = content_of_series(tmp_path / "killed"), content_of_series(tmp_path / "whole")
    assert ours == theirs


def content_of_series(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if not path.name.startswith(".")}
