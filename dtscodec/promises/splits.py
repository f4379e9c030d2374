"""Samples -> three parts by the digests of their contents: to fit to, to choose the size on, and to measure on."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from dtscodec.errors import Remedy, SamplesError
from dtscodec.evaluation.image_samples import ImageSample
from dtscodec.evaluation.samples import PreparedSamples
from dtscodec.evaluation.text_samples import TextSample

SHARES = {"fit": 0.35, "choose": 0.25, "measure": 0.4}
"""Shares of the samples in each part, on average."""
SEED = b"dtscodec promise"
"""What a digest is preceded by when it decides on the part."""
LEAST = {"fit": 1, "choose": 16, "measure": 32}
"""Fewest samples of each part."""
MOST = {"choose": 128, "measure": 512}
"""Most samples of two parts, which the models run on as a whole: more take longer and hardly make limits closer."""


@dataclass(frozen=True, slots=True)
class Splits:
    """The parts of the samples, as files or folders that `dtscodec.fit` and `dtscodec.compare_behaviour` read.

    Parameters
    ----------
    fit, choose, measure : Path
        Samples to fit packs to, to choose the size on, and to measure on.
    measured : int
        Number of samples to measure on.
    digest : str
        SHA-256 of the digests of the samples to measure on, ascending (spec section 3.3).
    digest_of_all : str
        The same of all samples, for the journal.
    """

    fit: Path
    choose: Path
    measure: Path
    measured: int
    digest: str
    digest_of_all: str


def split_samples(prepared: PreparedSamples, where: str, folder: Path) -> Splits:
    """Split samples into three parts, and write these into a folder.

    The part of a sample depends on its content alone. Samples of equal content count once, and texts without a
    prediction are left out.

    Parameters
    ----------
    prepared : PreparedSamples
        The samples.
    where : str
        Their path, for messages.
    folder : Path
        An empty folder, for the parts.

    Raises
    ------
    SamplesError
        There are too few samples in a part.
    """
    parts: dict[str, dict[bytes, TextSample | ImageSample]] = {part: {} for part in SHARES}
    samples = {_digest(sample): sample for sample in prepared.samples if _predicts(prepared, sample)}
    for digest, sample in sorted(samples.items()):
        chosen = parts[_part_of(digest)]
        if len(chosen) < MOST.get(_part_of(digest), len(samples)):
            chosen[digest] = sample
    _check(parts, where)
    paths = {part: _write(folder / part, chosen) for part, chosen in parts.items()}
    measured = parts["measure"]
    return Splits(**paths, measured=len(measured), digest=_digest_of(measured), digest_of_all=_digest_of(samples))


def _digest(sample: TextSample | ImageSample) -> bytes:
    content = sample.text.encode() if isinstance(sample, TextSample) else sample.path.read_bytes()
    return sha256(content).digest()


def _digest_of(samples: Mapping[bytes, object]) -> str:
    return sha256(b"".join(sorted(samples))).hexdigest()


def _predicts(prepared: PreparedSamples, sample: TextSample | ImageSample) -> bool:
    """Return whether a model predicts anything on a sample: a causal one needs a token before another."""
    if isinstance(sample, ImageSample) or prepared.architecture.classes is not None:
        return True
    return len(prepared.processor(sample.text).input_ids) > 1


def _part_of(digest: bytes) -> str:
    # Hashed again: samples may have been chosen by their plain digest before, such as those that are for calibration.
    place = int.from_bytes(sha256(SEED + digest).digest()[:8], "big") / 2**64
    for part, share in SHARES.items():
        if place < share:
            return part
        place -= share
    return "measure"


def _check(parts: Mapping[str, Mapping[bytes, object]], where: str) -> None:
    if all(len(parts[part]) >= least for part, least in LEAST.items()):
        return
    total = sum(map(len, parts.values()))
    found = f"{len(parts['measure'])} and {len(parts['choose'])} of {total} different ones"
    # A share of the samples varies by chance: ask for a few more.
    needed = max(round(1.3 * least / SHARES[part]) for part, least in LEAST.items())
    raise SamplesError(
        f"{where}: expected at least {LEAST['measure']} samples to measure a promise on, and {LEAST['choose']} to "
        f"choose the size on, got {found}",
        Remedy(f"give at least {needed}"),
    )


def _write(path: Path, samples: Mapping[bytes, TextSample | ImageSample]) -> Path:
    """Write texts as a file, or images as a folder of links."""
    texts: Sequence[str] = [sample.text for sample in samples.values() if isinstance(sample, TextSample)]
    if texts:
        file = path.with_suffix(".jsonl")
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return file
    path.mkdir()
    for digest, sample in samples.items():
        if isinstance(sample, ImageSample):
            os.symlink(sample.path.absolute(), path / f"{digest.hex()}{sample.path.suffix}")
    return path
