"""File -> text samples, with or without labels."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dtscodec.errors import Remedy, SamplesError
from dtscodec.evaluation.labels import Classes, Label


@dataclass(frozen=True, slots=True)
class TextSample:
    """A text.

    Parameters
    ----------
    text : str
        The text.
    where : str
        File and line of the text, for messages.
    label : int, optional
        The index of its class, if it is labelled.
    """

    text: str
    where: str
    label: int | None = None


def read_texts(path: Path, classes: Classes | None = None) -> list[TextSample]:
    r"""Read a file of texts.

    Parameters
    ----------
    path : Path
        UTF-8. ``*.jsonl``: objects with ``text`` and, if labelled, ``label``, an index or a name. ``*.tsv``: a text,
        or a text, a tab and its label. Other files: one text per line. Blank lines are skipped.
    classes : Classes, optional
        The classes that labels name; without it labels are ignored.

    Raises
    ------
    SamplesError
        The file cannot be read, or holds no text; a line is malformed; or only some of the texts have a label.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
    ...     print("well made\tgood", file=file, flush=True)
    ...     texts = read_texts(Path(file.name), Classes(2, {"bad": 0, "good": 1}))
    >>> texts[0].text, texts[0].label
    ('well made', 1)
    """
    texts = [_read_line(line, f"{path}: line {number}", path.suffix.lower(), classes) for number, line in _lines(path)]
    if not texts:
        raise SamplesError(f"{path}: expected at least one text, got none")
    # All texts have a label if the first one has.
    is_labelled = texts[0].label is not None
    for text in texts:
        if (text.label is not None) != is_labelled:
            expected, found = ("a label", "none") if is_labelled else ("no label", "one")
            raise SamplesError(
                f"{text.where}: expected {expected} as in {texts[0].where}, got {found}",
                Remedy("label all or none"),
            )
    return texts


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield numbers and contents of the lines that are not blank."""
    if path.exists() and not path.is_file():
        raise SamplesError(f"{path}: expected a file of texts, got a directory or a device")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SamplesError(f"{path}: expected a file of texts, got '{error.strerror}'") from error
    # bytes.splitlines splits at line ends only; str.splitlines would also split at separators within a text.
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise SamplesError(f"{path}: line {number}: expected UTF-8, got byte {line[error.start]:#04x}") from error
        if text.strip():
            yield number, text


def _read_line(line: str, where: str, suffix: str, classes: Classes | None) -> TextSample:
    try:
        text, label = _parse(line, suffix, classes)
        if not text.strip():
            raise ValueError(f"expected a text, got {text!r}")
        return TextSample(text, where, None if label is None or classes is None else classes.number(label))
    except ValueError as error:
        raise SamplesError(f"{where}: {error}") from error


def _parse(line: str, suffix: str, classes: Classes | None) -> tuple[str, Label | None]:
    if suffix == ".jsonl":
        return _from_json(line)
    return _from_tsv(line, classes) if suffix == ".tsv" else (line, None)


def _from_json(line: str) -> tuple[str, Label | None]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON, got '{error}'") from error
    text = entry.get("text") if isinstance(entry, dict) else None
    if not isinstance(text, str):
        raise ValueError(f'expected an object such as {{"text": "well made", "label": 1}}, got {line[:60]!r}')
    # JSON may escape half a surrogate pair, which UTF-8 cannot encode.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("expected a text in Unicode, got half a surrogate pair")
    label = entry.get("label")
    if label is not None and (isinstance(label, bool) or not isinstance(label, (int, str))):
        raise ValueError(f"expected a label that is a number or a name, got {label!r}")
    return text, label


def _from_tsv(line: str, classes: Classes | None) -> tuple[str, Label | None]:
    text, *fields = line.split("\t")
    if len(fields) > 1:
        raise ValueError(f"expected a text, or a text, a tab and a label, got {len(fields)} tabs")
    if not fields:
        return text, None
    label = fields[0].strip()
    return text, classes.label(label) if classes else label
