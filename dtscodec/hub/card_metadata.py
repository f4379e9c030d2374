"""YAML metadata at the head of a model card, edited as text, so that the owner's lines and comments stay."""

import re
from collections.abc import Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]

from dtscodec.errors import CheckpointError, Remedy
from dtscodec.messages import one_line

CardValues = Mapping[str, str | list[str]]
"""Values of metadata, by key."""

_BLOCK = re.compile(r"([\s\ufeff]*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(?:\r\n|\n|$))")
"""The Hub's rule for metadata at the head of a page."""

_KEY = re.compile(r"^[\w-]+[ \t]*:", re.MULTILINE)
_LINE_END = re.compile(r"\r|\n|\Z")
_INVALID = (yaml.YAMLError, ValueError, LookupError, RecursionError)


def with_metadata(page: str, ours: CardValues, was: CardValues, line_end: str) -> str:
    """Return a page with our metadata added; values of the owner take precedence.

    Parameters
    ----------
    page : str
        The whole page.
    ours : mapping
        Texts for keys that the page lacks, and lists, which are added to those of the page.
    was : mapping
        Values that earlier pushes wrote; only these may be replaced.
    line_end : str
        Line end for the lines that are added.

    Raises
    ------
    CheckpointError
        The metadata are not valid YAML, or cannot be edited line by line.
    """
    head, block, rest = _split(page, line_end)
    data = _parsed(block) or {}
    changes = _changes(data, ours, was)
    return head + _edited(block, changes, data | changes, line_end) + rest


def _split(page: str, line_end: str) -> tuple[str, str, str]:
    """Split a page into the part before its metadata, these, and the rest. Text between two rules is no metadata."""
    found = _BLOCK.match(page)
    if found and _parsed(found[2]) is not None:
        return found[1], found[2], page[found.end(2) :]
    # A byte order mark stays at the very beginning.
    mark = "\ufeff" if page.startswith("\ufeff") else ""
    return f"{mark}---{line_end}", "", f"{line_end}---{line_end}{line_end}{page[len(mark) :]}"


def _parsed(block: str) -> dict[Any, Any] | None:
    """Return parsed metadata; None for text."""
    try:
        data = yaml.safe_load(block + "\n")
    except _INVALID as error:
        # Without a line like `key:` this is text between two rules, not YAML with an error.
        if not _KEY.search(block):
            return None
        detail = f"expected metadata in YAML between its first two lines of ---, got: {one_line(error, 160)}"
        raise CheckpointError(f"README.md: {detail}", Remedy("correct them on the Hub, and push again")) from error
    return data if isinstance(data, dict) else {} if data is None else None


def _changes(data: Mapping[Any, Any], ours: CardValues, was: CardValues) -> dict[str, Any]:
    """Return the values that differ from those wanted, by key."""
    changes: dict[str, Any] = {}
    for key, value in ours.items():
        there = data.get(key)
        # Lists only grow: the owner's entries first, then ours that are missing.
        if isinstance(there, list) or isinstance(value, list):
            entries = there if isinstance(there, list) else [there] if there is not None else []
            more = [entry for entry in (value if isinstance(value, list) else [value]) if entry not in entries]
            if more:
                changes[key] = [*entries, *more]
        # A text is replaced only if an earlier push wrote it.
        elif there in (None, was.get(key)) and there != value:
            changes[key] = value
    if data.get("base_model") not in (None, was.get("base_model"), ours.get("base_model")):
        changes.pop("base_model_relation", None)  # It would describe the owner's base.
    return changes


def _edited(block: str, changes: Mapping[str, Any], wanted: dict[Any, Any], line_end: str) -> str:
    """Return metadata with changes, checked to parse as wanted; compared as text, since NaN differs from itself."""
    edited = block
    try:
        for key, value in changes.items():
            edited = _with(edited, key, value, line_end)
        # Edits by position can go wrong in unusual YAML, so the result is checked against the values.
        if repr(_parsed(edited)) == repr(wanted):
            return edited
    except _INVALID:  # The edited metadata are no YAML.
        pass
    lines = yaml.safe_dump(dict(changes), default_flow_style=True, width=float("inf")).strip()
    raise CheckpointError(f"README.md: expected metadata with a line for each key, got others; add {lines} yourself")


def _with(block: str, key: str, value: str | list[Any], line_end: str) -> str:
    """Return metadata with a key set. A list begins with the entries of the present one."""
    style = None if isinstance(value, list) else False
    line = yaml.safe_dump({key: value}, default_flow_style=style, width=float("inf"), allow_unicode=True).strip()
    # Edit at the positions of nodes: dumping the whole block would lose comments and quoting.
    root = yaml.compose(block + "\n", yaml.SafeLoader)
    found = [pair for pair in root.value if pair[0].value == key] if root else []
    if not found:
        return f"{block}{line_end}{line}" if block else line
    name, there = found[-1]
    if isinstance(there, yaml.SequenceNode) and there.value:
        return _with_entries(block, there, value[len(there.value) :], line_end)
    begin, end = name.start_mark.index, there.end_mark.index
    return f"{block[:begin]}{line}{block[end:]}"


def _with_entries(block: str, there: Any, more: str | list[Any], line_end: str) -> str:
    """Return metadata with more entries in a list, which is not empty."""
    end: int = there.value[-1].end_mark.index
    # `[a, b]`: after the last entry, before the bracket.
    if there.flow_style:
        return block[:end] + "".join(f", {entry}" for entry in more) + block[end:]
    # One entry a line: after the last entry's line, which may end in a comment.
    found = _LINE_END.search(block, end)
    end = found.start() if found else len(block)
    indent = " " * there.start_mark.column
    return block[:end] + "".join(f"{line_end}{indent}- {entry}" for entry in more) + block[end:]
