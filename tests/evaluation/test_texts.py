import json
from pathlib import Path

import pytest

from dtscodec.errors import SamplesError
from dtscodec.evaluation.labels import Classes
from dtscodec.evaluation.text_samples import read_texts

CLASSES = Classes(3, {"bad": 0, "good": 1, "0": 2})


def read(tmp_path: Path, name: str, content: str | bytes) -> list[tuple[str, int | None]]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(text.text, text.label) for text in read_texts(path, CLASSES)]


def test_json_lines_have_labels_that_are_numbers_or_names(tmp_path: Path) -> None:
    lines = '{"text": "a b", "label": "good"}\n{"label": 2, "text": "c", "id": 7}\n'
    assert read(tmp_path, "t.jsonl", lines) == [("a b", 1), ("c", 2)]


def test_tabs_separate_texts_from_labels_and_a_name_precedes_a_number(tmp_path: Path) -> None:
    assert read(tmp_path, "t.tsv", "a b\tgood\r\nc\t1\nd\t0\n") == [("a b", 1), ("c", 1), ("d", 2)]


@pytest.mark.parametrize("name", ["t.jsonl", "t.tsv", "t.txt", "t"])
def test_labels_are_optional(tmp_path: Path, name: str) -> None:
    lines = [json.dumps({"text": text}) if name.endswith("l") else text for text in ("a b", "c")]
    assert read(tmp_path, name, "\n".join(lines)) == [("a b", None), ("c", None)]


def test_other_files_hold_one_text_a_line(tmp_path: Path) -> None:
    assert read(tmp_path, "t.txt", '{"text": "a"}\n  b\tgood') == [('{"text": "a"}', None), ("  b\tgood", None)]


@pytest.mark.parametrize("name", ["t.jsonl", "t.tsv", "t.txt"])
def test_empty_lines_and_a_byte_order_mark_are_skipped(tmp_path: Path, name: str) -> None:
    line = b'{"text": "a"}' if name == "t.jsonl" else b"a"
    assert read(tmp_path, name, b"\xef\xbb\xbf\n \n" + line + b"\n\n") == [("a", None)]


@pytest.mark.parametrize("name", ["t.jsonl", "t.txt"])
def test_separators_of_unicode_end_no_line(tmp_path: Path, name: str) -> None:
    text = "a\u2028b\x85c"
    assert read(tmp_path, name, json.dumps({"text": text}, ensure_ascii=False) if "json" in name else text) == [
        (text, None)
    ]


def test_without_classes_labels_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("a\tanything\nb\n")
    assert [text.label for text in read_texts(tmp_path / "t.tsv")] == [None, None]


BAD_LINES = {
    "t.jsonl": [
        "no json",
        '{"text": 3}',
        '["text"]',
        '{"label": 1}',
        '{"text": " "}',
        '{"text": "a", "label": true}',
        '{"text": "a", "label": 1.0}',
        '{"text": "a", "label": 3}',
        '{"text": "a", "label": -1}',
        '{"text": "a", "label": "fair"}',
        '{"text": "\\ud800"}',
        "[" * 100_000,
    ],
    "t.tsv": ["a\tb\tgood", "a\tfair", "a\t3", "a\t-1", "\t1", "a\t", "a\t" + 5000 * "1"],
}


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, lines in BAD_LINES.items() for line in lines])
def test_a_bad_line_is_named_with_what_was_expected(tmp_path: Path, name: str, line: str) -> None:
    first = '{"text": "a", "label": 1}' if name == "t.jsonl" else "a\tgood"
    with pytest.raises(SamplesError) as caught:
        read(tmp_path, name, f"{first}\n\n{line}\n")
    assert str(caught.value).startswith(f"{tmp_path / name}: line 3: expected ")
    assert ", got " in str(caught.value)


def test_a_line_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match="line 2: expected UTF-8, got byte 0xff"):
        read(tmp_path, "t.txt", b"a\nb\xff\n")


@pytest.mark.parametrize("lines", ["a\tgood\nb", "a\nb\tgood"])
def test_all_texts_have_a_label_or_none_has(tmp_path: Path, lines: str) -> None:
    with pytest.raises(SamplesError, match=r"t\.tsv: line 2: expected .* label as in .*line 1, got "):
        read(tmp_path, "t.tsv", lines)


@pytest.mark.parametrize("name", ["t.jsonl", "t.tsv", "t.txt"])
def test_a_file_without_texts_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(SamplesError, match="expected at least one text, got none"):
        read(tmp_path, name, "\n \n")


def test_anything_but_a_file_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(SamplesError, match="expected a file of texts, got "):
            read_texts(path)
