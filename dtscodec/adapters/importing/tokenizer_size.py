"""The tokens that were added to a tokenizer, read from its files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dtscodec.storage.storage_errors import read_errors

_FILES = ("added_tokens.json", "tokenizer_config.json", "tokenizer.json")


def largest_added_token(directory: Path) -> int:
    """Return the largest number of a token that was added to the tokenizer in a directory; -1 if there is none.

    Parameters
    ----------
    directory : Path
        A model's or an adapter's directory, local or on the Hub.

    Raises
    ------
    CheckpointError
        A file cannot be read.
    """
    found = [-1]
    for name in _FILES:
        path = directory / name
        with read_errors(path):
            data = path.read_bytes() if path.is_file() else b"{}"
        try:
            found += _numbers(json.loads(data))
        except (ValueError, RecursionError):
            # A damaged file is copied unchanged, and not judged here.
            continue
    return max(found)


def _numbers(document: Any) -> Iterator[int]:
    """Yield the numbers of added tokens in the JSON of one of the files, all of which have other forms."""
    if not isinstance(document, dict):
        return
    tokens = document.get("added_tokens")
    yield from (token["id"] for token in tokens or () if isinstance(token, dict) and isinstance(token.get("id"), int))
    decoder = document.get("added_tokens_decoder")
    yield from (int(key) for key in decoder or () if str(key).isdecimal())
    # A table of tokens and their numbers.
    if all(isinstance(value, int) and not isinstance(value, bool) for value in document.values()):
        yield from document.values()
