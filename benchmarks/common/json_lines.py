"""Records on disk, a JSON line each, so that a run that was cut short resumes where it stopped."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record")


def read_records(path: Path, record: Callable[..., Record]) -> list[Record]:
    """Return the records of a file; none if it does not exist. Inverse of `append_record`.

    Parameters
    ----------
    path : Path
    record : callable
        A dataclass, called with the fields of each line.
    """
    lines = path.read_text().splitlines() if path.exists() else []
    return [record(**json.loads(line)) for line in lines]


def append_record(path: Path, record: "DataclassInstance") -> None:
    """Append a dataclass to a file. Inverse of `read_records`."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(record)) + "\n")
