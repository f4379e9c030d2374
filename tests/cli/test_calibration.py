"""``dtscodec calibrate`` and ``dtscodec encode --calibration``, on a small classifier."""

from pathlib import Path

import pytest
import torch

import dtscodec
from dtscodec.calibration.distill import Loss
from dtscodec.codec.grams import Grams
from tests.behaviour.helpers import Made, broken, make, write_texts
from tests.cli.helpers import Cli


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture
def texts(tmp_path: Path) -> str:
    return str(write_texts(tmp_path / "texts.jsonl"))


SMALL = ("--size", "12kB")


def kl(pack: str, small: Made, texts: str) -> float:
    return dtscodec.compare_behaviour(pack, small.fine, small.base, texts=texts).kl


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


def test_calibrate_writes_what_encode_takes(cli: Cli, small: Made, texts: str) -> None:
    out = cli("calibrate", str(small.fine), texts, "-o", "grams.safetensors")
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
    cli("calibrate", str(small.fine), texts, "-o", "grams.safetensors")
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
    losses = iter([Loss(0.1, 1.0), Loss(after, 0.5)])
    monkeypatch.setattr("dtscodec.calibration.distill._loss_of", lambda student, lessons: next(losses))
    out = cli("encode", str(small.base), f"t={small.fine}", "-o", "out", *SMALL, "--calibration", texts, *way)
    assert told in out


def test_a_fine_tune_that_gives_nan_is_one_line_and_leaves_nothing(cli: Cli, small: Made, texts: str) -> None:
    name = "bert.embeddings.LayerNorm.bias"
    fine = broken(small.fine, Path("nan"), name)
    assert "nan/model.safetensors: bert.encoder.layer.0.attention.self.query.weight: expected finite " in cli.fails(
        "calibrate", str(fine), texts, "-o", "grams.safetensors"
    )
    for way in (("--steps", "1"), ("--esd", "--no-fit")):
        given = "--raw", name, "--calibration", texts, *way
        line = cli.is_cut_off("encode", str(small.base), f"t={fine}", "-o", "out", "--rank", "0.1", *given)
        assert "nan/model.safetensors: " in line
        assert "expected finite " in line
