"""``dtscodec collect`` and ``dtscodec encode --calibration``, on a small classifier."""

import contextlib
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import dtscodec
from dtscodec.activations.gram_file import Grams
from dtscodec.calibration.fit_loss import FitLoss
from dtscodec.cli.progress import progress_bar
from tests.cli.helpers import Cli, load, snapshot
from tests.cli.test_interrupts import signalling
from tests.evaluation.helpers import Made, broken, make, write_texts


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture
def texts(tmp_path: Path) -> str:
    return str(write_texts(tmp_path / "texts.jsonl"))


SMALL = ("--size", "12kB")


def kl(pack: str, small: Made, texts: str) -> float:
    return dtscodec.compare_behaviour(pack, small.fine, small.base, samples=texts).kl


def test_a_pack_that_is_fitted_to_texts_is_closer_and_no_larger(cli: Cli, small: Made, texts: str) -> None:
    cli("encode", str(small.base), f"t={small.fine}", "-o", "plain", *SMALL)
    out = cli(
        "encode", str(small.base), f"t={small.fine}", "-o", "fitted", *SMALL, "--calibration", texts, "--steps", "60"
    )
    assert out.startswith("t: ")
    assert Path("fitted").stat().st_size <= 12_000
    assert kl("fitted", small, texts) < 0.8 * kl("plain", small, texts)
    with dtscodec.open("fitted") as pack:
        assert pack.summary.encoder.endswith(" distilled")  # type: ignore[union-attr]
    assert sorted(path.name for path in Path().iterdir() if "part" in path.name) == []


def test_biases_are_corrected_with_the_fit_or_alone_and_elements_left_out(cli: Cli, small: Made, texts: str) -> None:
    ways = [(), ("--bias-correction",), ("--no-elements",), ("--no-fit", "--bias-correction")]
    ids = set()
    for number, way in enumerate(ways):
        steps = () if "--no-fit" in way else ("--steps", "3")
        given = "--calibration", texts, *steps, *way
        cli("encode", str(small.base), f"t={small.fine}", "-o", f"{number}", *SMALL, *given)
        with dtscodec.open(f"{number}") as pack:
            ids.add(pack.id)
    assert len(ids) == len(ways)


def test_several_fine_tunes_are_fitted_and_listed(cli: Cli, small: Made, texts: str) -> None:
    fine_tunes = [f"one={small.fine}", f"two={small.fine}"]
    cli("encode", str(small.base), *fine_tunes, "-o", "packs", *SMALL, "--calibration", texts, "--steps", "2")
    assert {path.name for path in Path("packs/packs").iterdir()} == {"one.safetensors", "two.safetensors"}
    cli("verify", "packs/packs/two.safetensors", "--base", str(small.base))


@pytest.mark.parametrize("more", [(), ("--esd",), ("--bias-correction", "--no-fit")])
def test_a_pack_without_coded_tensors_is_written_unfitted_and_the_others_go_on(
    cli: Cli, small: Made, texts: str, more: tuple[str, ...]
) -> None:
    shutil.copytree(small.fine, "moved")
    weights = load("moved/model.safetensors")
    moved = {name: tensor + 0.01 * torch.randn(tensor.shape) for name, tensor in weights.items()}
    save_file(moved, "moved/model.safetensors")
    fine_tunes = [f"one={small.fine}", "two=moved"]
    given = "--calibration", texts, *(() if "--no-fit" in more else ("--steps", "2")), *more
    out = cli("encode", str(small.fine), *fine_tunes, "-o", "packs", *SMALL, *given)
    assert [(line.split(":")[0], "nothing to fit" in line) for line in out.splitlines()] == [
        ("one", True),
        ("two", False),
    ]
    if "--esd" not in more:
        cli("encode", str(small.fine), f"one={small.fine}", "-o", "plain", *SMALL)
        assert Path("packs/packs/one.safetensors").read_bytes() == Path("plain").read_bytes()
    with dtscodec.open("packs/packs/two.safetensors") as pack:
        assert pack.summary.encoder.endswith(" distilled")  # type: ignore[union-attr]


def test_exact_tensors_leave_nothing_to_fit(cli: Cli, small: Made, texts: str) -> None:
    out = cli("encode", str(small.base), f"t={small.fine}", "-o", "exact", "--raw", "*", "--calibration", texts)
    assert "nothing to fit" in out
    cli("verify", "exact", "--base", str(small.base))


def test_an_encode_that_is_cut_off_goes_on_with_gram_matrices_that_are_collected_anew(
    cli: Cli, small: Made, texts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (*SMALL, "--calibration", texts, "--esd", "--steps", "2")
    command = ["encode", str(small.base), f"t={small.fine}", *given, "-o"]
    cli(*command, "undisturbed")
    cut_off(cli, monkeypatch, *command, "out")
    assert goes_on(cli, *command, "out") == 9
    assert Path("out").read_bytes() == Path("undisturbed").read_bytes()


def test_gram_matrices_are_told_by_their_content_wherever_they_lie(
    cli: Cli, small: Made, texts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        cli("collect", str(small.fine), texts, "-o", f"{name}.safetensors")
    assert Path("one.safetensors").read_bytes() == Path("two.safetensors").read_bytes()
    Path("fewer.txt").write_text("w5 w6\n")
    cli("collect", str(small.fine), "fewer.txt", "-o", "other.safetensors")
    command = ["encode", str(small.base), f"t={small.fine}", "-o", "out", *SMALL, "--calibration"]
    cut_off(cli, monkeypatch, *command, "one.safetensors")
    code, _, err = cli.run(*command, "other.safetensors")
    assert (code, "other inputs or settings" in err) == (1, True)
    assert goes_on(cli, *command, "two.safetensors") == 9
    cli("encode", str(small.base), f"t={small.fine}", "-o", "whole", *SMALL, "--calibration", "one.safetensors")
    assert Path("out").read_bytes() == Path("whole").read_bytes()


def test_several_fine_tunes_go_on_behind_those_that_are_fitted(
    cli: Cli, small: Made, texts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine_tunes = [f"one={small.fine}", f"two={small.fine}"]
    command = ["encode", str(small.base), *fine_tunes, *SMALL, "--calibration", texts, "--steps", "2", "-o"]
    cli(*command, "undisturbed")
    cut_off(cli, monkeypatch, *command, "out", task="two")
    one = Path("out/packs/one.safetensors").stat()
    assert "other inputs or settings" in cli.run(*command, "out", "--steps", "3")[2]
    goes_on(cli, *command, "out")
    assert Path("out/packs/one.safetensors").stat().st_mtime_ns == one.st_mtime_ns
    assert snapshot(Path("out")) == snapshot(Path("undisturbed"))


def cut_off(cli: Cli, monkeypatch: pytest.MonkeyPatch, *command: str, task: str = "t") -> None:
    """Interrupt an encode at the ninth tensor of a fine-tune."""

    def bar(label: str, total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        return (signalling(signal.SIGINT, 9) if label == task else progress_bar)(label, total)

    with monkeypatch.context() as patch:
        patch.setattr("dtscodec.cli.encode.progress_bar", bar)
        code, _, err = cli.run(*command)
    assert (code, "interrupted" in err) == (1, True)


def goes_on(cli: Cli, *command: str) -> int:
    """Run the same command again; how many results were kept."""
    code, _, err = cli.run(*command)
    assert code == 0, err
    return int(err.split("dtscodec: ")[1].split()[0])


def test_calibrate_writes_what_encode_takes(cli: Cli, small: Made, texts: str) -> None:
    out = cli("collect", str(small.fine), texts, "-o", "grams.safetensors")
    assert out.startswith("7 texts: ")
    cli("encode", str(small.base), f"t={small.fine}", "-o", "esd", *SMALL, "--calibration", "grams.safetensors")
    cli("encode", str(small.base), f"t={small.fine}", "-o", "same", *SMALL, "--calibration", texts, "--esd", "--no-fit")
    with dtscodec.open("esd") as pack, dtscodec.open("same") as same:
        assert pack.summary.encoder.endswith("preset=best esd=0.1")  # type: ignore[union-attr]
        assert pack.id == same.id
    with Grams("grams.safetensors") as grams, dtscodec.decode("esd", small.base) as decoded:
        name = next(name for name in decoded if name in grams)
        gram = grams.read(name)
        assert gram is not None
        assert gram.moment.shape == (decoded[name].shape[1],) * 2
        assert torch.allclose(gram.moment, gram.moment.T)


def test_workers_make_the_same_pack_with_gram_matrices(cli: Cli, small: Made, texts: str) -> None:
    cli("collect", str(small.fine), texts, "-o", "grams.safetensors")
    for name, more in (("one", ()), ("two", ("--workers", "2"))):
        given = "--calibration", "grams.safetensors", "--esd", "0.01"
        cli("encode", str(small.base), f"t={small.fine}", "-o", name, *SMALL, *given, *more)
    assert Path("one").read_bytes() == Path("two").read_bytes()


@pytest.mark.parametrize(
    "given",
    [
        ("--steps", "3"),
        ("--esd",),
        ("--calibration", "x.safetensors", "--steps", "3"),
        ("--calibration", "x.txt", "--no-fit"),
        ("--calibration", "x.txt", "--no-fit", "--bias-correction", "--no-elements"),
        ("--calibration", "x.txt", "--no-fit", "--bias-correction", "--steps", "3"),
        ("--calibration", "x.safetensors", "--bias-correction"),
        ("--no-elements",),
        ("--calibration", "x.txt", "--esd", "-1"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(cli: Cli, small: Made, given: tuple[str, ...]) -> None:
    assert cli.run("encode", str(small.base), str(small.fine), *given)[0] == 2


def test_what_is_no_calibration_is_one_line(cli: Cli, small: Made, texts: str) -> None:
    def fails(data: str) -> str:
        return cli.fails("encode", str(small.base), str(small.fine), "-o", "out", "--calibration", data)

    assert "none.txt" in fails("none.txt")
    assert "none.safetensors" in fails("none.safetensors")
    assert "Gram matrix" in fails(str(small.fine / "model.safetensors"))
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("after", "way", "told"),
    [
        (0.2, ("--steps", "1"), "KL on these 0.1 -> 0.2 (it rose: more --steps may help), "),
        (0.2, ("--no-fit", "--bias-correction"), "KL on these 0.1 -> 0.2 (it rose: a fit may help), "),
        (0.05, ("--steps", "1"), "KL on these 0.1 -> 0.05, "),
    ],
)
def test_a_kl_that_rose_in_the_fit_is_told(
    cli: Cli, small: Made, texts: str, monkeypatch: pytest.MonkeyPatch, after: float, way: tuple[str, ...], told: str
) -> None:
    losses = iter([FitLoss(0.1, 1.0), FitLoss(after, 0.5)])
    monkeypatch.setattr("dtscodec.calibration.fit.mean_loss", lambda model, targets: next(losses))
    out = cli("encode", str(small.base), f"t={small.fine}", "-o", "out", *SMALL, "--calibration", texts, *way)
    assert told in out


def test_a_fine_tune_that_gives_nan_is_one_line_and_leaves_nothing(cli: Cli, small: Made, texts: str) -> None:
    name = "bert.embeddings.LayerNorm.bias"
    fine = broken(small.fine, Path("nan"), name)
    assert "nan/model.safetensors: bert.encoder.layer.0.attention.self.query.weight: expected finite " in cli.fails(
        "collect", str(fine), texts, "-o", "grams.safetensors"
    )
    for way in (("--steps", "1"), ("--esd", "--no-fit")):
        given = "--raw", name, "--calibration", texts, *way
        line = cli.is_cut_off("encode", str(small.base), f"t={fine}", "-o", "out", "--rank", "0.1", *given)
        assert "nan/model.safetensors: " in line
        assert "expected finite " in line
