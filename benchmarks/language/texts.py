"""Texts of each task, in pieces of about 128 tokens, split by digest into training, calibration and test texts.

Whole sources go to one side of a split: a file of code, a message of a translation, a question with its answer. So no
source of a test text was trained on or calibrated with.
"""

import calendar
import gettext
import hashlib
import io
import json
import random
import sysconfig
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.demo import data
from benchmarks.language.wheels import PRETIX

PIECE_TOKENS = 128
"""Most tokens of a piece."""
SHARES = {"test": 0.2, "calibration": 0.2}
"""Shares of the sources by their digest; the rest are for training."""

Source: TypeAlias = Sequence[str]
"""Lines that stay together on one side of the split, and that are not torn apart."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Pieces of text of one task.

    Parameters
    ----------
    train, calibration, test : sequence of str
        Pieces of at most `PIECE_TOKENS` tokens.
    """

    train: Sequence[str]
    calibration: Sequence[str]
    test: Sequence[str]


def style(cache: Path) -> Iterator[Source]:
    """Yield snippets of film reviews, as in ``benchmarks.demo.data``."""
    split = data.load("movie", cache)
    for example in [*split.train, *split.test]:
        yield [example.text]


def code(cache: Path) -> Iterator[Source]:
    """Yield the modules of Python's standard library, without tests and tables."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.glob("*.py")) + sorted(root.glob("[a-h]*/*.py")):
        if not {"test", "tests", "idlelib", "encodings", "pydoc_data", "site-packages"} & set(path.parts):
            yield path.read_text(errors="ignore").splitlines()


def german(cache: Path) -> Iterator[Source]:
    """Yield the German messages of a web application."""
    with zipfile.ZipFile(PRETIX.fetch(cache)) as wheel:
        file = io.BytesIO(wheel.read("pretix/locale/de/LC_MESSAGES/django.mo"))
    catalog: Mapping[Any, str] = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    for message in sorted({text for key, text in catalog.items() if key}):
        if len(message) >= 20:
            yield [" ".join(message.split())]


def documentation(cache: Path) -> Iterator[Source]:
    """Yield the topics of Python's language reference, as ``help()`` shows them."""
    from pydoc_data.topics import topics

    for topic in sorted(set(topics.values())):
        yield topic.splitlines()


def exercises(cache: Path) -> Iterator[Source]:
    """Yield short exercises with one right answer each; see `exercise`."""
    generator = random.Random(0)
    for text in sorted({exercise(generator) for _ in range(20_000)}):
        yield [text]


MONTHS = [calendar.month_name[month] for month in range(1, 13)]
ANSWER = " = "
"""What separates a question from its answer."""


def exercise(generator: random.Random) -> str:
    """Return an exercise and its answer.

    >>> exercise(random.Random(1))
    'sort 65 9 18 = 9 18 65'
    """
    kind = generator.choice(("sum", "date", "sort", "larger"))
    if kind == "sum":
        a, b = generator.randint(10, 99), generator.randint(10, 99)
        return f"sum {a} {b}{ANSWER}{a + b}"
    if kind == "date":
        year, month, day = generator.randint(1900, 2099), generator.randint(1, 12), generator.randint(1, 28)
        return f"date {year}-{month:02}-{day:02}{ANSWER}{day} {MONTHS[month - 1]} {year}"
    if kind == "sort":
        numbers = [generator.randint(1, 99) for _ in range(3)]
        return f"sort {' '.join(map(str, numbers))}{ANSWER}{' '.join(map(str, sorted(numbers)))}"
    a, b = generator.randint(100, 9999), generator.randint(100, 9999)
    return f"larger {a} {b}{ANSWER}{max(a, b)}"


SOURCES: dict[str, Callable[[Path], Iterable[Source]]] = {
    "style": style,
    "code": code,
    "german": german,
    "exercises": exercises,
    "documentation": documentation,
}


def load_texts(name: str, cache: Path, tokenizer: Any) -> Texts:
    """Return the pieces of a task.

    Parameters
    ----------
    name : str
        One of `SOURCES`.
    cache : Path
        Folder of downloads; pieces are stored there, too.
    tokenizer : transformers.PreTrainedTokenizerBase
        The base's, which counts the tokens.
    """
    path = cache / "texts" / f"{name}.json"
    if not path.exists():
        sides: dict[str, list[Source]] = {side: [] for side in ("train", "calibration", "test")}
        for source in sorted(SOURCES[name](cache), key=digest):
            sides[side_of(source)].append(source)
        found = {side: list(_pieces(sources, tokenizer)) for side, sources in sides.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    return Texts(**json.loads(path.read_text()))


def write_samples(texts: Sequence[str], path: Path) -> Path:
    """Write texts as samples that ``dtscodec`` reads, unless they are there, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def side_of(source: Source) -> str:
    """Return the side of the split that a source is on: train, calibration or test."""
    share = int.from_bytes(digest(source)[-4:], "big") / 2**32
    for side, width in SHARES.items():
        if share < width:
            return side
        share -= width
    return "train"


def digest(source: Source) -> bytes:
    """Return the digest of a source, which orders and splits them."""
    return hashlib.sha256("\n".join(source).encode()).digest()


def _pieces(sources: Iterable[Source], tokenizer: Any) -> Iterator[str]:
    """Yield pieces of whole lines, each of at most `PIECE_TOKENS` tokens, in an order by their digests."""
    pieces: list[str] = []
    lines: list[str] = []
    size = 0
    for line in (line for source in sources for line in source):
        count = len(tokenizer(line + "\n", add_special_tokens=False).input_ids)
        if count > PIECE_TOKENS:
            continue  # A single line that is too long.
        if size + count > PIECE_TOKENS:
            pieces.append("\n".join(lines))
            lines, size = [], 0
        lines.append(line)
        size += count
    return iter(sorted(pieces, key=lambda piece: hashlib.sha256(piece.encode()).digest()))
