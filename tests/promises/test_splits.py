"""Splits: by content alone, without duplicates, and refused where too few samples are to be measured on."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from dtscodec.errors import SamplesError
from dtscodec.evaluation.architecture import read_architecture
from dtscodec.evaluation.samples import prepare_samples
from dtscodec.promises.splits import Splits, split_samples
from tests.evaluation.helpers import Made
from tests.promises.helpers import write_words


def split(made: Made, path: Path, folder: Path) -> Splits:
    folder.mkdir()
    return split_samples(prepare_samples(read_architecture(made.fine), path), "texts", folder)


def texts_of(path: Path) -> set[str]:
    return {json.loads(line)["text"] for line in path.read_text().splitlines()}


def parts_of(splits: Splits) -> list[set[str]]:
    return [texts_of(path) for path in (splits.fit, splits.choose, splits.measure)]


def test_every_text_is_in_one_part_that_depends_on_it_alone(language_model: Made, tmp_path: Path) -> None:
    path = write_words(tmp_path / "texts.txt", 150)
    parts = parts_of(split(language_model, path, tmp_path / "one"))
    assert set.union(*parts) == set(path.read_text().splitlines())
    assert sum(map(len, parts)) == 150
    # In another order, and with more texts, all stay where they were.
    more = write_words(tmp_path / "more.txt", 200)
    more.write_text("\n".join(reversed(more.read_text().splitlines())))
    for few, many in zip(parts, parts_of(split(language_model, more, tmp_path / "two")), strict=True):
        assert few < many


def test_texts_that_were_chosen_by_their_digest_are_spread_over_all_parts(language_model: Made, tmp_path: Path) -> None:
    words = write_words(tmp_path / "words.txt", 600).read_text().splitlines()
    chosen = [text for text in words if sha256(text.encode()).digest()[0] < 64]
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(chosen))
    parts = parts_of(split(language_model, path, tmp_path / "parts"))
    assert all(len(part) > len(chosen) / 8 for part in parts)


def test_duplicates_count_once_and_texts_of_one_token_not_at_all(language_model: Made, tmp_path: Path) -> None:
    path = write_words(tmp_path / "texts.txt", 150)
    plain = split(language_model, path, tmp_path / "one")
    path.write_text(path.read_text() * 3 + "w1\nw2\n")
    again = split(language_model, path, tmp_path / "two")
    assert parts_of(plain) == parts_of(again)
    assert (plain.digest, plain.digest_of_all) == (again.digest, again.digest_of_all)
    assert plain.measured == len(texts_of(plain.measure))


def test_fewer_than_32_texts_to_measure_on_are_refused(language_model: Made, tmp_path: Path) -> None:
    path = write_words(tmp_path / "texts.txt", 60)
    with pytest.raises(SamplesError, match=r"texts: expected at least 32 samples to measure .*; give at least"):
        split(language_model, path, tmp_path / "one")
    # Duplicates do not help.
    path.write_text(path.read_text() * 10)
    with pytest.raises(SamplesError, match="of 60 different ones"):
        split(language_model, path, tmp_path / "two")
