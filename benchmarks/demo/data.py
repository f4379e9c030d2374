"""Labelled texts of four sentiment domains, out of the source distribution of ``vaderSentiment``.

The texts are those of Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of
Social Media Text" (ICWSM 2014): each with the mean of some 20 human ratings, from -4 to 4. They ship only in the
source distribution, as a tar file within the tar file. A task is one domain, where a text's label is the sign of
its rating; or all of them, with a class for each domain (``source``), for each intensity (``intensity``), or for each
domain, sign and intensity (``sixteen``).
"""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SDIST = "vaderSentiment-3.3.2.tar.gz"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
REQUIREMENT = f"vaderSentiment==3.3.2 --hash=sha256:{SDIST_SHA256}\n"
INNER_TAR = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"

FILES = {
    "movie": "movieReviewSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "nyt": "nytEditorialSnippets_GroundTruth.txt",
}
SIXTEEN, SOURCE, INTENSITY = "sixteen", "source", "intensity"
ACROSS = {SIXTEEN: 4 * len(FILES), SOURCE: len(FILES), INTENSITY: 2}
"""Tasks of all texts, and how many classes they have."""
TASKS = (*FILES, SIXTEEN)
"""Those that all texts of are trained on elsewhere; `load` knows the others of `ACROSS` too."""
STRONG = 1.5
"""Ratings beyond this, of either sign, count as intense."""
TEST_SIZE = 1500
SPLIT_SALT = "dtscodec-demo-1\n"
MIX_SALT = "mixed "


class Example(NamedTuple):
    """A text and its class; of one domain: 1 for a positive mean rating, 0 for a negative one."""

    text: str
    label: int


class Rated(NamedTuple):
    """A text and the mean of its ratings, which is not 0."""

    text: str
    rating: float


class Split(NamedTuple):
    """The texts of a domain, parted for good: ``test`` is never trained on, whatever the settings."""

    train: Sequence[Example]
    test: Sequence[Example]


def classes(task: str) -> int:
    """Number of classes of a task."""
    return ACROSS.get(task, 2)


def load(task: str, cache: Path) -> Split:
    """Texts of one task, in an order that depends on nothing but the texts themselves.

    Sorting by a hash of the text, rather than shuffling, keeps every text on its side of the split even if
    the file were reordered, and makes the first n of either side a fair sample of it.

    Parameters
    ----------
    task
        One of ``movie``, ``tweets``, ``amazon``, ``nyt``; or one of `ACROSS`: all their texts, each on the side of the
        split that it has there (of the test texts an equal share of each domain).
    cache
        Folder that holds the source distribution; it is fetched with pip where missing.
    """
    if task not in ACROSS:
        train, test = _rated(task, cache)
        return Split([_signed(rated) for rated in train], [_signed(rated) for rated in test])
    trains: list[Example] = []
    tests: list[Example] = []
    for number, domain in enumerate(FILES):
        train, test = _rated(domain, cache)
        trains += [_graded(task, rated, number) for rated in train]
        tests += [_graded(task, rated, number) for rated in test[: TEST_SIZE // len(FILES)]]
    return Split(sorted(trains, key=_mixed), sorted(tests, key=_mixed))


def _signed(rated: Rated) -> Example:
    return Example(rated.text, int(rated.rating > 0))


def _graded(task: str, rated: Rated, domain: int) -> Example:
    """Class by domain, sign and intensity, or by one of them.

    >>> superb = Rated("Superb.", 3.1)
    >>> [_graded(task, superb, 2).label for task in (SIXTEEN, SOURCE, INTENSITY)]
    [11, 2, 1]
    """
    intense = int(abs(rated.rating) > STRONG)
    labels = {SIXTEEN: 4 * domain + 2 * (rated.rating > 0) + intense, SOURCE: domain, INTENSITY: intense}
    return Example(rated.text, labels[task])


def _rated(domain: str, cache: Path) -> tuple[list[Rated], list[Rated]]:
    """Texts to train and to test on."""
    texts = sorted(parse(_read_member(fetch(cache), FILES[domain])), key=_order)
    return texts[TEST_SIZE:], texts[:TEST_SIZE]


def _order(rated: Rated) -> bytes:
    return hashlib.sha256((SPLIT_SALT + rated.text).encode()).digest()


def _mixed(example: Example) -> bytes:
    """Another order: by that of the split the largest domain would come first, as it keeps the smallest hashes."""
    return hashlib.sha256((MIX_SALT + example.text).encode()).digest()


def parse(table: str) -> list[Rated]:
    r"""Read lines of id, mean rating and text; leave out neutral texts and texts rated twice.

    >>> parse("1\t2.3\tGood.\r\n2\t-0.6\tBad. \r\n3\t0\tA film.\r\n4\t1.1\tBad.\r\n")
    [Rated(text='Good.', rating=2.3), Rated(text='Bad.', rating=-0.6)]
    """
    ratings: dict[str, float] = {}
    for line in table.splitlines():
        _, rating, text = line.split("\t")
        if float(rating) != 0:
            ratings.setdefault(text.strip(), float(rating))
    return [Rated(text, rating) for text, rating in ratings.items()]


def fetch(cache: Path) -> Path:
    """Path of the verified source distribution, after having pip download it where it is missing.

    pip compares the hash before it runs the setup code by which it learns a source distribution's metadata;
    apart from that, no code of the package is run. A file put into ``cache`` by hand serves as well.
    """
    path = cache / SDIST
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _download(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SDIST_SHA256:
        raise SystemExit(f"{path}: expected SHA-256 {SDIST_SHA256}, got {digest}; delete it and try again")
    return path


def _download(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(REQUIREMENT)
        # --no-binary names the package: ":all:" would also build setuptools itself from source.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--no-binary", "vaderSentiment", "--require-hashes"]
        command += ["--requirement", str(requirements), "--dest", folder]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"pip could not download {path.name}; it may be put here: {path}\n{done.stderr}")
        os.replace(Path(folder, SDIST), path)


def _read_member(sdist: Path, name: str) -> str:
    """Text of one ground truth file; both tar files are read in memory, nothing is extracted."""
    with tarfile.open(sdist) as outer, tarfile.open(fileobj=io.BytesIO(_bytes(outer, INNER_TAR))) as inner:
        member = next(m for m in inner.getnames() if m.rpartition("/")[2] == name)
        return _bytes(inner, member).decode("utf-8")


def _bytes(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise SystemExit(f"{name}: expected a file in the archive, got a folder")
    return file.read()
