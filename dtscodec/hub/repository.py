"""Local packs, checked, and the files of a repository for them."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from dtscodec.errors import CheckpointError, ConfigError, Remedy
from dtscodec.packs.claims import claim_figures
from dtscodec.packs.directory import pack_path, remembered_base
from dtscodec.packs.directory_index import DirectoryIndex, ListedPack, directory_index_text, read_directory_index
from dtscodec.packs.pack import Pack
from dtscodec.storage.storage_errors import pack_errors

_NAME = re.compile(r"[^\s./\\@%#?|<>:*`\"\ud800-\udfff][^/\\@%#?|<>:*`\"\x00-\x1f\x7f\ud800-\udfff]*")
"""Names of tasks that are valid file names on every system, and valid in names on the Hub."""

_NAME_BYTES = 200
"""Most bytes of such a name."""

README, INDEX, CONFIG = "README.md", "dtscodec.json", "config.json"
FIGURES = ("relative_error", "kl", "agreement", "accuracy", "accuracy_fine_tune")
"""Figures about a pack that a model card shows: fields of the JSON output of `dtscodec compare`."""


@dataclass(frozen=True, slots=True)
class LocalPack:
    """A pack on this machine, verified completely.

    Parameters
    ----------
    task : str
        Name of the task.
    path : Path
        The pack.
    listed : ListedPack
        Its entry in the repository's index.
    base : str or None
        Name on the Hub of the base that the pack records, if any.
    base_digest : str or None
        Digest of the base that the pack needs, if any.
    parameters : int
        Elements of the fine-tune.
    sha256 : str
        SHA-256 of the file, taken before the pack was verified, so that a later change is noticed.
    """

    task: str
    path: Path
    listed: ListedPack
    base: str | None
    base_digest: str | None
    parameters: int
    sha256: str


def local_packs(source: Path, figures: Mapping[str, Mapping[str, float]]) -> list[LocalPack]:
    """Return the packs of a directory that `dtscodec encode` wrote, or a single pack; each is verified.

    Parameters
    ----------
    source : Path
        The directory or the pack.
    figures : mapping
        Task -> figures about its quality, by name.

    Raises
    ------
    CheckpointError
        The directory is not one of packs.
    ConfigError
        Figures are given for a task that has no pack.
    PackNotFoundError, FormatError
        A pack is missing or damaged.
    """
    if source.is_dir():
        folder = read_directory_index(source)
        if folder is None or not folder.packs:
            raise CheckpointError(f"{source}: expected a directory of packs with {INDEX}, or a pack, got neither")
        packs = [_checked(source / listed.file, task) for task, listed in sorted(folder.packs.items())]
    else:
        packs = [_checked(source, None)]
    if unknown := sorted(figures.keys() - {pack.task for pack in packs}):
        raise ConfigError(f"figures: expected tasks among {[pack.task for pack in packs]}, got {unknown[0]!r}")
    return [_with_figures(pack, figures.get(pack.task, {})) for pack in packs]


def read_figures(path: Path) -> dict[str, float]:
    """Return figures about a pack's quality, from the JSON output of `dtscodec compare`.

    Parameters
    ----------
    path : Path
        A file with that output.

    Raises
    ------
    CheckpointError
        The file is missing or has another content.
    """
    try:
        document = json.loads(path.read_bytes())
        found = {**document, **(document.get("behaviour") or {})}
        # Not isinstance, for which booleans are integers.
        numbers = {name: found[name] for name in FIGURES if type(found.get(name)) in (int, float)}
        return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected the report of 'dtscodec compare' as JSON, got '{error}'") from error


def updated_index(known: DirectoryIndex | None, packs: list[LocalPack], base: str | None) -> DirectoryIndex:
    """Return an index with packs added, or replaced if their task is listed already.

    Parameters
    ----------
    known : DirectoryIndex or None
        Index of the repository before the push, if it has one.
    packs : list of LocalPack
        The packs of the push.
    base : str or None
        Base for the index; by default that of `known`.
    """
    listed = dict(known.packs) if known else {}
    for pack in packs:
        before = listed.get(pack.task)
        # Figures stay if the pack is the same; new ones take precedence.
        same = before is not None and before.id == pack.listed.id
        figures = {**(before.figures if before and same else {}), **pack.listed.figures}
        listed[pack.task] = ListedPack(pack.listed.file, pack.listed.size, pack.listed.id, figures)
    return DirectoryIndex(listed, base or (known.base if known else None))


def small_files(folder: DirectoryIndex) -> dict[str, bytes]:
    """Return the index and a configuration, by file name; the Hub counts downloads of the latter."""
    config: dict[str, Any] = {"library_name": "dtscodec", "packs": sorted(folder.packs)}
    if folder.base:
        config["base_model"] = folder.base
    return {INDEX: directory_index_text(folder).encode(), CONFIG: (json.dumps(config, indent=2) + "\n").encode()}


def is_ours(config: bytes | None) -> bool:
    """Return whether a repository's configuration is missing or was written by a push."""
    try:
        return config is None or json.loads(config).get("library_name") == "dtscodec"
    except (ValueError, AttributeError, RecursionError):
        return False


def _checked(path: Path, task: str | None) -> LocalPack:
    """Verify a pack; its task is, by default, the one that it records, or the stem of its file name."""
    with pack_errors(path):
        # Hash before the check, so that a change during or after it is noticed.
        digest = _sha256(path)
    with Pack(path) as pack:
        for _ in pack.reader.check_all():
            pass
        name = task or pack.summary.task or path.name.partition(".")[0]
        if not _NAME.fullmatch(name) or len(name.encode()) > _NAME_BYTES:
            detail = f"expected a task that can be the name of a file, got {name!r:.60}"
            raise ConfigError(f"{path}: {detail}", Remedy("encode it as NAME=PATH"))
        reference, claim = pack.summary.base, pack.summary.claim
        claimed = claim_figures(claim) if claim else {}
        return LocalPack(
            task=name,
            path=path,
            listed=ListedPack(pack_path(Path(), name).as_posix(), pack.size, pack.id, claimed),
            base=remembered_base(reference),
            base_digest=reference.digest if reference else None,
            parameters=sum(entry.spec.elements for entry in pack.index.tensors),
            sha256=digest,
        )


def _sha256(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while data := file.read(2**20):
            digest.update(data)
    return digest.hexdigest()


def _with_figures(pack: LocalPack, figures: Mapping[str, float]) -> LocalPack:
    # What the pack itself claims takes precedence over figures that are given.
    return replace(pack, listed=replace(pack.listed, figures={**figures, **pack.listed.figures}))
