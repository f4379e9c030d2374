"""``dtscodec collect`` and ``dtscodec encode --calibration``, on a small classifier. See `test_fit` for the details."""

import contextlib
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import dtscodec
from dtscodec.activations.gram_file import GramFile
from dtscodec.calibration.encode_calibrated import encode_calibrated
from dtscodec.calibration.fit_loss import FitLoss
from dtscodec.cli.console import progress_bar
from tests.cli.helpers import Cli, load, snapshot
from tests.cli.test_interrupts import signalling
from tests.cli.test_main import Terminal
from tests.evaluation.helpers import Made, broken, make, write_texts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture
def texts(tmp_path: Path) -> str:
    return str(write_texts(tmp_path / "texts.jsonl"))


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits of two steps, unless `set_steps` says otherwise."""
    set_steps(monkeypatch, 2)


def set_steps(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    assert encode_calibrated.__kwdefaults__ is not None
    monkeypatch.setitem(encode_calibrated.__kwdefaults__, "steps", steps)


SMALL = ("--size", "12kB")


def kl(pack: str, small: Made, texts: str) -> float:
    return dtscodec.compare_behaviour(pack, small.fine, small.base, samples=texts).kl


def test_a_pack_that_is_fitted_to_texts_is_closer_and_no_larger(cli: Cli, small: Made, texts: str) -> None:
    cli("encode", str(small.base), f"t={small.fine}", "-o", "plain", *SMALL)
    out = cli("encode", str(small.base), f"t={small.fine}", "-o", "fitted", *SMALL, "--calibration", texts)
    assert out.startswith("t: ")
    assert Path("fitted").stat().st_size <= 12_000
    assert kl("fitted", small, texts) < 0.8 * kl("plain", small, texts)
    with dtscodec.open("fitted") as pack:
        assert pack.summary.encoder.endswith(" distilled")  # type: ignore[union-attr]
    assert sorted(path.name for path in Path().iterdir() if "part" in path.name) == []


@pytest.mark.usefixtures("few_steps")
def test_the_bar_of_the_fit_follows_that_of_the_encode(
    cli: Cli, small: Made, texts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        command = "encode", str(small.base), f"t={small.fine}", "-o", "out", *SMALL, "--calibration", texts
        assert cli.run(*command)[0] == 0
    labels = re.findall(r"\r(t|fit): ", terminal.getvalue())
    assert labels == sorted(labels, reverse=True)
    assert set(labels) == {"t", "fit"}
    assert "\n" not in terminal.getvalue()  # Two bars at once take two lines.


@pytest.mark.usefixtures("few_steps")
def test_several_fine_tunes_are_fitted_and_listed(cli: Cli, small: Made, texts: str) -> None:
    fine_tunes = [f"one={small.fine}", f"two={small.fine}"]
    cli("encode", str(small.base), *fine_tunes, "-o", "packs", *SMALL, "--calibration", texts)
    assert {path.name for path in Path("packs/packs").iterdir()} == {"one.safetensors", "two.safetensors"}
    cli("verify", "packs/packs/two.safetensors", "--base", str(small.base))


@pytest.mark.usefixtures("few_steps")
def test_a_pack_without_coded_tensors_is_written_unfitted_and_the_others_are_fitted(
    cli: Cli, small: Made, texts: str
) -> None:
    shutil.copytree(small.fine, "moved")
    weights = load("moved/model.safetensors")
    moved = {name: tensor + 0.01 * torch.randn(tensor.shape) for name, tensor in weights.items()}
    save_file(moved, "moved/model.safetensors")
    fine_tunes = [f"one={small.fine}", "two=moved"]
    out = cli("encode", str(small.fine), *fine_tunes, "-o", "packs", *SMALL, "--calibration", texts)
    assert [(line.split(":")[0], "nothing to fit" in line) for line in out.splitlines()] == [
        ("one", True),
        ("one", False),  # No tensor differs from the base.
        ("two", False),
    ]
    cli("encode", str(small.fine), f"one={small.fine}", "-o", "plain", *SMALL)
    assert Path("packs/packs/one.safetensors").read_bytes() == Path("plain").read_bytes()
    with dtscodec.open("packs/packs/two.safetensors") as pack:
        assert pack.summary.encoder.endswith(" distilled")  # type: ignore[union-attr]


@pytest.mark.usefixtures("few_steps")
def test_packs_of_a_family_are_fitted_to_texts(cli: Cli, small: Made, texts: str) -> None:
    shutil.copytree(small.fine, "moved")
    weights = load("moved/model.safetensors")
    moved = {name: tensor + 0.01 * torch.randn(tensor.shape) for name, tensor in weights.items()}
    save_file(moved, "moved/model.safetensors")
    command = ["family", "average", f"one={small.fine}", "two=moved", *SMALL]
    lines = cli(*command, "-o", "fitted", "--calibration", texts).splitlines()
    assert [line.split(":")[0] for line in lines] == ["average of 2 fine-tunes", "one", "two"]
    assert all("before the fit to 7 texts (1 of them truncated), KL on these" in line for line in lines[1:])
    cli(*command, "-o", "plain")
    assert Path("fitted/base.safetensors").read_bytes() == Path("plain/base.safetensors").read_bytes()
    for task in ("one", "two"):
        cli("verify", f"fitted/packs/{task}.safetensors", "--base", "fitted/base.safetensors")
        with dtscodec.open(f"fitted/packs/{task}.safetensors") as pack:
            assert " distilled; base: average" in str(pack.summary.encoder)


def test_packs_of_a_family_are_fitted_to_readable_samples_and_model_directories_only(
    cli: Cli, small: Made, texts: str
) -> None:
    fine, weights = str(small.fine), str(small.fine / "model.safetensors")
    assert "none.txt" in cli.fails("family", "average", fine, f"b={fine}", "-o", "out", "--calibration", "none.txt")
    line = cli.fails("family", "average", fine, f"b={weights}", "-o", "out", "--calibration", texts)
    assert line.startswith(f"{weights}: expected a model directory")
    assert not Path("out").exists()


def test_exact_tensors_leave_nothing_to_fit(cli: Cli, small: Made, texts: str) -> None:
    out = cli("encode", str(small.base), f"t={small.fine}", "-o", "exact", "--raw", "*", "--calibration", texts)
    assert "nothing to fit" in out
    cli("verify", "exact", "--base", str(small.base))


@pytest.mark.usefixtures("few_steps")
def test_an_interrupted_encode_of_several_resumes_after_those_that_are_fitted(
    cli: Cli, small: Made, texts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine_tunes = [f"one={small.fine}", f"two={small.fine}"]
    command = ["encode", str(small.base), *fine_tunes, *SMALL, "--calibration", texts, "-o"]
    cli(*command, "undisturbed")
    interrupt(cli, monkeypatch, *command, "out", task="two")
    one = Path("out/packs/one.safetensors").stat()
    with monkeypatch.context() as patch:
        set_steps(patch, 3)
        assert "other inputs or settings" in cli.run(*command, "out")[2]
    resume(cli, *command, "out")
    assert Path("out/packs/one.safetensors").stat().st_mtime_ns == one.st_mtime_ns
    assert snapshot(Path("out")) == snapshot(Path("undisturbed"))


def interrupt(cli: Cli, monkeypatch: pytest.MonkeyPatch, *command: str, task: str = "t") -> None:
    """Interrupt an encode at the ninth tensor of a fine-tune."""

    def bar(label: str, total: int, unit: str = "B") -> contextlib.AbstractContextManager[Callable[[int], None]]:
        return signalling(signal.SIGINT, 9)(label, total) if label == task else progress_bar(label, total, unit)

    with monkeypatch.context() as patch:
        patch.setattr("dtscodec.cli.encode.progress_bar", bar)
        code, _, err = cli.run(*command)
    assert (code, "interrupted" in err) == (1, True)


def resume(cli: Cli, *command: str) -> int:
    """Run the same command again; return how many results the journal had."""
    code, _, err = cli.run(*command)
    assert code == 0, err
    return int(err.split("dtscodec: ")[1].split()[0])


def test_collect_writes_what_the_activation_metric_takes(cli: Cli, small: Made, texts: str) -> None:
    out = cli("collect", str(small.fine), texts, "-o", "grams.safetensors")
    assert out.startswith("7 texts: ")
    dtscodec.collect(small.fine, "same.safetensors", samples=texts)
    assert Path("grams.safetensors").read_bytes() == Path("same.safetensors").read_bytes()
    with GramFile("grams.safetensors") as grams, dtscodec.decode(small.pack, small.base) as decoded:
        name = next(name for name in decoded if name in grams)
        gram = grams.read(name)
        assert gram is not None
        assert gram.moment.shape == (decoded[name].shape[1],) * 2
        assert torch.allclose(gram.moment, gram.moment.T)


def test_weights_alone_are_for_fit_which_takes_a_model_directory(cli: Cli, small: Made, texts: str) -> None:
    weights = str(small.fine / "model.safetensors")
    line = cli.fails("encode", str(small.base), weights, "-o", "out", "--calibration", texts)
    assert line.startswith(f"{weights}: expected a model directory")
    assert "dtscodec fit with --model" in line


@pytest.mark.parametrize("option", ["--steps", "--bias-correction", "--model"])
def test_details_of_the_fit_are_options_of_fit_only(cli: Cli, small: Made, texts: str, option: str) -> None:
    given = "encode", str(small.base), str(small.fine), "--calibration", texts
    assert "unrecognized arguments" in cli.misused(*given, option, "1")


def test_bad_samples_are_one_line(cli: Cli, small: Made, texts: str) -> None:
    def fails(data: str) -> str:
        return cli.fails("encode", str(small.base), str(small.fine), "-o", "out", "--calibration", data)

    assert "none.txt" in fails("none.txt")
    assert "expected UTF-8" in fails(str(small.fine / "model.safetensors"))
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("after", "words"),
    [(0.2, "KL on these 0.1 -> 0.2 (it rose: see dtscodec fit --steps), "), (0.05, "KL on these 0.1 -> 0.05, ")],
)
@pytest.mark.usefixtures("few_steps")
def test_a_kl_that_rose_in_the_fit_is_reported(
    cli: Cli, small: Made, texts: str, monkeypatch: pytest.MonkeyPatch, after: float, words: str
) -> None:
    losses = iter([FitLoss(0.1, 1.0), FitLoss(after, 0.5)])
    monkeypatch.setattr("dtscodec.calibration.fit.mean_loss", lambda distillation, batches: next(losses))
    assert words in cli("encode", str(small.base), f"t={small.fine}", "-o", "out", *SMALL, "--calibration", texts)


@pytest.mark.usefixtures("few_steps")
def test_a_fine_tune_that_gives_nan_is_one_line_and_leaves_nothing(cli: Cli, small: Made, texts: str) -> None:
    name = "bert.embeddings.LayerNorm.bias"
    fine = broken(small.fine, Path("nan"), name)
    assert "nan/model.safetensors: bert.encoder.layer.0.attention.self.query.weight: expected finite " in cli.fails(
        "collect", str(fine), texts, "-o", "grams.safetensors"
    )
    given = "--raw", name, "--calibration", texts
    line = cli.is_cut_off("encode", str(small.base), f"t={fine}", "-o", "out", "--rank", "0.1", *given)
    assert "nan/model.safetensors: " in line
    assert "expected finite " in line
