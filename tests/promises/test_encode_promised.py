"""Promises on small models: kept and claimed, refused with nothing written, resumed, and measured twice at most."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import dtscodec
from dtscodec.errors import ConfigError, PromiseError, SamplesError
from dtscodec.format.claim import UNIT
from dtscodec.progress import ProgressCallback
from dtscodec.promises import encode_promised as module
from dtscodec.promises.bounds import Bound
from tests.evaluation.helpers import Made
from tests.promises.helpers import write_words
from tests.support import check_against_spec

pytestmark = pytest.mark.slow


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_words(tmp_path / "texts.txt", 110)


def promise(made: Made, out: Path, bound: Bound, texts: Path, **options: Any) -> dtscodec.PromisedPack:
    return dtscodec.encode_promised(made.base, made.fine, out, bound, samples=texts, **{"steps": 3, **options})


def tensors_of(pack: "Path | bytes", made: Made) -> dict[str, Tensor]:
    with dtscodec.decode(pack, made.base) as decoded:
        return {name: decoded[name] for name in decoded}


@pytest.mark.parametrize("kind", ["language_model", "classifier"])
@pytest.mark.parametrize("bound", [dtscodec.MaxKl(2e-4), dtscodec.MinAgreement(0.9)], ids=str)
def test_a_pack_keeps_the_bound_and_claims_it(
    kind: str, bound: Bound, texts: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made: Made = request.getfixturevalue(kind)
    promised = promise(made, tmp_path / "out", bound, texts)
    claim = dtscodec.info(tmp_path / "out").claim
    assert claim == promised.claim
    assert (claim.measure, claim.bound / UNIT, claim.confidence / UNIT) == (bound.measure, bound.value, 0.95)
    assert bound.shortfall(claim.limit / UNIT) <= bound.most + 1e-9
    assert claim.samples >= 32
    assert promised.encoded.pack_bytes == (tmp_path / "out").stat().st_size
    check_against_spec(tmp_path / "out", made.base)
    # What is claimed is what `compare` finds, up to the choice of texts.
    behaviour = dtscodec.compare_behaviour(tmp_path / "out", made.fine, made.base, samples=texts)
    figure = behaviour.kl if bound.measure == "kl" else behaviour.agreement
    assert figure == pytest.approx(claim.figure / UNIT, rel=0.5)


def test_codes_are_those_of_the_pack_that_was_measured(language_model: Made, texts: Path, tmp_path: Path) -> None:
    bound = dtscodec.MaxKl(1e-3)
    packs: dict[int, bytes] = {}
    promised = promise(
        language_model,
        tmp_path / "out",
        bound,
        texts,
        on_trial=lambda trial: packs.update({trial.size: trial.pack.read_bytes()}),
    )
    assert {trial.size for trial in promised.trials} == set(packs)
    tried = [tensors_of(pack, language_model) for pack in packs.values()]
    written = tensors_of(tmp_path / "out", language_model)
    assert any(all(written[name].equal(other[name]) for name in written) for other in tried)


def test_a_size_that_is_given_is_never_exceeded(language_model: Made, texts: Path, tmp_path: Path) -> None:
    config = dtscodec.EncodeConfig(dtscodec.Size.parse("9kB"))
    with pytest.raises(PromiseError, match=r"expected a KL of at most 1e-06 in at most 9.0 kB, got .* in 9.0 kB; "):
        promise(language_model, tmp_path / "out", dtscodec.MaxKl(1e-6), texts, config=config)
    assert not (tmp_path / "out").exists()
    promised = promise(language_model, tmp_path / "out", dtscodec.MaxKl(1e-3), texts, config=config)
    assert promised.encoded.pack_bytes <= 9000


def test_too_few_texts_and_other_targets_are_refused_before_any_work(
    language_model: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "encode", None)
    few, many = (write_words(tmp_path / f"{count}.txt", count) for count in (40, 110))
    with pytest.raises(SamplesError, match="at least 32"):
        promise(language_model, tmp_path / "out", dtscodec.MaxKl(1), few)
    for config in (dtscodec.EncodeConfig(dtscodec.Rank(2)), dtscodec.EncodeConfig(preset=dtscodec.Paper())):
        with pytest.raises(ConfigError, match="no target but a size"):
            promise(language_model, tmp_path / "out", dtscodec.MaxKl(1), many, config=config)
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError):
            dtscodec.MaxKl(bad)
        with pytest.raises(ConfigError):
            dtscodec.MinAgreement(1 - bad)


def test_an_agreement_that_so_few_samples_cannot_show_is_refused_at_once(
    classifier: Made, texts: Path, tmp_path: Path
) -> None:
    trials: list[int] = []
    with pytest.raises(SamplesError, match="complete agreement would not do"):
        promise(
            classifier,
            tmp_path / "out",
            dtscodec.MinAgreement(0.99),
            texts,
            on_trial=lambda trial: trials.append(trial.size),
        )
    assert len(trials) == 1


def test_a_pack_whose_measurement_fails_gives_way_to_one_larger_one(
    language_model: Made, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = dtscodec.MaxKl(2e-4)
    once = promise(language_model, tmp_path / "once", bound, texts)
    assert once.measurements == 1
    # The first pack is chosen without any margin, so that its measurement fails.
    monkeypatch.setattr(module, "ROUNDS", ((0.96, -6.0), (0.99, 2.5)))
    twice = promise(language_model, tmp_path / "twice", bound, texts)
    assert twice.measurements == 2
    # Without a second round the bound is not kept.
    monkeypatch.setattr(module, "ROUNDS", ((0.96, -6.0),))
    with pytest.raises(PromiseError, match="measured limit"):
        promise(language_model, tmp_path / "none", bound, texts)
    assert not (tmp_path / "none").exists()


def test_the_same_call_goes_on_where_it_was_interrupted(language_model: Made, texts: Path, tmp_path: Path) -> None:
    bound = dtscodec.MaxKl(2e-4)
    fits: list[str] = []

    def run(out: Path, stop_at: int) -> None:
        @contextmanager
        def watched(step: str, total: int) -> Iterator[ProgressCallback]:
            if step.startswith("fit"):
                fits.append(step)
                if len(fits) == stop_at:
                    raise KeyboardInterrupt
            yield lambda count: None

        fits.clear()
        with dtscodec.Journal(tmp_path / f"{out.name}.part") as journal:
            promise(language_model, out, bound, texts, progress=watched, journal=journal)

    run(tmp_path / "undisturbed", 0)
    total = len(fits)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", 2)
    assert not (tmp_path / "out").exists()
    run(tmp_path / "out", 0)
    assert len(fits) == total - 1
    assert (tmp_path / "out").read_bytes() == (tmp_path / "undisturbed").read_bytes()
    assert not (tmp_path / "out.part").exists()
