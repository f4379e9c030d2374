"""The index of a series, `series.json` (spec section 15.7): its steps, and the pack that each is stored as."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtscodec.errors import CheckpointError
from dtscodec.format.naming import is_valid_component
from dtscodec.format.primitives.canonical_json import Fields
from dtscodec.format.primitives.hex_digest import is_hex_digest
from dtscodec.format.primitives.safetensors_header import parse_object
from dtscodec.storage.open_file import new_file
from dtscodec.storage.storage_errors import read_errors

INDEX_NAME = "series.json"


@dataclass(frozen=True, slots=True)
class Step:
    """A checkpoint of a series.

    Parameters
    ----------
    step : int
        Its number, at least 0.
    file : str
        Name of its pack in the series' directory.
    size : int
        Length of the pack in bytes.
    id : str
        The pack id, 64 hex digits.
    content : str
        Digest of the checkpoint's tensors (spec section 15.1), 64 hex digits.
    base : int, optional
        The step that its pack was made against; None for an anchor.

    Raises
    ------
    ValueError
        A value is not as said.
    """

    step: int
    file: str
    size: int
    id: str
    content: str
    base: int | None = None

    def __post_init__(self) -> None:
        if self.step < 0 or (self.base is not None and not 0 <= self.base < self.step):
            raise ValueError(f"expected a step, and an earlier one as its base, got {self.step} and {self.base}")
        if not is_valid_component(self.file) or "/" in self.file:
            raise ValueError(f"expected a file name without a directory, got {self.file!r:.80}")
        if not (is_hex_digest(self.id) and is_hex_digest(self.content)):
            raise ValueError(f"expected digests of 64 hex digits in step {self.step}")

    @property
    def is_anchor(self) -> bool:
        """Whether the step needs no other one."""
        return self.base is None


@dataclass(frozen=True, slots=True)
class SeriesIndex:
    """The content of `series.json`.

    Parameters
    ----------
    steps : tuple of Step
        Numbers ascending.
    base : str, optional
        Path or Hub name of the checkpoint that anchors were made against; None if they need none.

    Raises
    ------
    ValueError
        Steps do not ascend, or one is based on a step that is not there.
    """

    steps: tuple[Step, ...] = ()
    base: str | None = None

    def __post_init__(self) -> None:
        numbers = [step.step for step in self.steps]
        if numbers != sorted(set(numbers)):
            raise ValueError(f"expected steps ascending and unique, got {numbers!r:.80}")
        if missing := [step.base for step in self.steps if step.base is not None and step.base not in numbers]:
            raise ValueError(f"expected the steps that others are based on, got none of number {missing[0]}")

    def step(self, number: int) -> Step | None:
        """Return the step of a number; None if there is none."""
        return next((step for step in self.steps if step.step == number), None)

    def chain(self, step: Step) -> list[Step]:
        """Return the steps that lead to one: an anchor first, the step itself last."""
        found = [step]
        while (number := found[0].base) is not None:
            below = self.step(number)
            assert below is not None
            found.insert(0, below)
        return found

    def depth(self, step: Step) -> int:
        """Return the number of links from an anchor to a step; 0 for an anchor."""
        return len(self.chain(step)) - 1


def series_index_text(index: SeriesIndex) -> str:
    """Return the text of `series.json`; the inverse of `parse_series_index`."""
    document: dict[str, Any] = {"version": 1, "steps": [_step_json(step) for step in index.steps]}
    if index.base is not None:
        document["base"] = index.base
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _step_json(step: Step) -> dict[str, Any]:
    document: dict[str, Any] = {
        "step": step.step,
        "file": step.file,
        "size": step.size,
        "id": step.id,
        "content": step.content,
    }
    return document if step.base is None else document | {"base": step.base}


def parse_series_index(data: bytes, where: str) -> SeriesIndex:
    """Read the text of `series.json`; the inverse of `series_index_text`.

    Raises
    ------
    CheckpointError
        It is not a valid index.
    """
    try:
        fields = Fields(parse_object(data, where), "the index of a series")
        if fields.take("version", int) != 1:
            raise ValueError("expected version 1")
        steps = tuple(_parse_step(item) for item in fields.take_list("steps", dict))
        index = SeriesIndex(steps, fields.take("base", str, None))
        fields.end()
    except ValueError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{where}: {error}") from error
    return index


def _parse_step(item: dict[str, Any]) -> Step:
    fields = Fields(item, "a step")
    texts = fields.take("file", str), fields.take("size", int), fields.take("id", str), fields.take("content", str)
    step = Step(fields.take("step", int), *texts, fields.take("base", int, None))
    fields.end()
    return step


def read_series_index(directory: Path) -> SeriesIndex | None:
    """Read the index of a directory, local or remote; None if it has none. The inverse of `write_series_index`."""
    path = directory / INDEX_NAME
    with read_errors(path):
        if not path.is_file():
            return None
        data = path.read_bytes()
    return parse_series_index(data, str(path))


def write_series_index(directory: Path, index: SeriesIndex) -> None:
    """Write the index of a directory, at once and whole; the inverse of `read_series_index`."""
    with new_file(directory / INDEX_NAME, force=True) as file:
        file.write(series_index_text(index).encode())


def unlisted(index: SeriesIndex, names: Iterable[str]) -> list[str]:
    """Return those names of packs that are of no step: an interrupted writer left them."""
    listed = {step.file for step in index.steps}
    return sorted(name for name in names if name.startswith("step-") and name not in listed)
