"""The model card of a repository: metadata for the Hub, a section about the packs, and the owner's own text."""

import re
import shlex
from collections.abc import Mapping, Sequence

from dtscodec.errors import CheckpointError, Remedy
from dtscodec.hub.card_metadata import CardValues, with_metadata
from dtscodec.packs.directory_index import DirectoryIndex, ListedPack

BEGIN, END = "<!-- dtscodec: written by `dtscodec push`, between these lines -->", "<!-- dtscodec: end -->"

_HEADS = {
    "relative_error": "error",
    "kl": "KL",
    "agreement": "agrees",
    "accuracy_fine_tune": "accuracy, fine-tune",
    "accuracy": "accuracy, decoded",
}
_SHARES = ("agreement", "accuracy", "accuracy_fine_tune", "claimed_agreement")
_CLAIMED = {"claimed_kl": ("KL, claimed", "≤"), "claimed_agreement": ("agrees, claimed", "≥")}
"""Figures of claims (`dtscodec.packs.claims`): head of the column, and the side on which the limit is."""
_CLAIM_NOTE = """
Claimed figures are those of the author, on samples that the pack was not fitted to, with a confidence limit each.
"""


def model_card_text(
    repo: str, folder: DirectoryIndex, before: bytes | None = None, known: DirectoryIndex | None = None
) -> bytes:
    """Return the README of a repository.

    Parameters
    ----------
    repo : str
        `user/name`.
    folder : DirectoryIndex
        Index of the repository after the push.
    before : bytes, optional
        The present README. The owner's text in it stays.
    known : DirectoryIndex, optional
        Index of the repository before the push.

    Raises
    ------
    CheckpointError
        The README is not UTF-8, its metadata are invalid, or its section about packs cannot be found.
    """
    text = _text(before) if before else f"# {repo.partition('/')[2]}\n"
    # Our lines end as the page's own do.
    found = re.search(r"\r?\n", text)
    line_end = found[0] if found else "\n"
    part = f"{BEGIN}\n{_part(repo, folder)}{END}".replace("\n", line_end)
    # Values of the last push may be replaced; all others are the owner's.
    was = _metadata(repo, known) if known else {}
    return with_metadata(_replaced(text, part, line_end), _metadata(repo, folder), was, line_end).encode()


def _text(page: bytes) -> str:
    try:
        return page.decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"README.md: expected text in UTF-8, got '{error}'",
            Remedy("save it as such, and push again"),
        ) from error


def _metadata(repo: str, folder: DirectoryIndex) -> CardValues:
    """Return metadata for the Hub. A pack needs its base to run, as an adapter does."""
    data: dict[str, str | list[str]] = {"library_name": "dtscodec"}
    base = (
        folder.base.removeprefix("hf://").partition("@")[0] if folder.base and folder.base.startswith("hf://") else repo
    )
    if base != repo:
        data |= {"base_model": base, "base_model_relation": "adapter"}
    return data | {"tags": ["compressed", "delta", "dtscodec"]}


def _replaced(text: str, part: str, line_end: str) -> str:
    """Return a page with our section replaced, or appended if it has none."""
    before, begin, rest = text.partition(BEGIN)
    # No section yet.
    if not begin and END not in text:
        return text + line_end * (1 if text.endswith(line_end) else 2) + part + line_end
    # If marks are missing or repeated, what lies between them may be the owner's text.
    if not begin or rest.count(END) != 1 or BEGIN in rest:
        detail = f"expected one line '{BEGIN}' and then one '{END}', got others"
        raise CheckpointError(f"README.md: {detail}", Remedy("restore them, or remove them and the lines between them"))
    return before + part + rest.partition(END)[2]


def _part(repo: str, folder: DirectoryIndex) -> str:
    """Return our section: a table of the packs, and how to use them."""
    tasks = sorted(folder.packs)
    first = tasks[0]
    base = folder.base or "BASE"
    return f"""
Fine-tunes as [dtscodec](https://pypi.org/project/dtscodec/) packs: each is what differs from
{_base_link(folder.base)}, in a fraction of its size.

{_table(folder.packs)}
{_CLAIM_NOTE if _claimed(folder.packs) else ""}
```
pip install dtscodec
dtscodec decode {shlex.quote(f"hf://{repo}/{first}")} -o {shlex.quote(first)}       # plain weights
```

```python
import dtscodec

model = dtscodec.from_pretrained("{base}", "hf://{repo}/{first}")  # a model of transformers
dtscodec.apply_(model_of_the_base, "hf://{repo}/{first}")  # into one that holds the base
```
"""


def _base_link(base: str | None) -> str:
    if base is None:
        return "its base"
    if not base.startswith("hf://"):
        return f"the base in `{base}`"
    repo, _, revision = base.removeprefix("hf://").partition("@")
    return f"[{repo}](https://huggingface.co/{repo}) at `{revision[:12] or 'main'}`"


def _table(packs: Mapping[str, ListedPack]) -> str:
    known = [name for name in _HEADS if any(name in pack.figures for pack in packs.values())]
    claimed = _claimed(packs)
    head = ["task", "size", *(_HEADS[name] for name in known), *(_CLAIMED[name][0] for name in claimed)]
    rows = [
        [
            f"`{task}`",
            f"{pack.size:,} bytes",
            *(_figure(name, pack.figures.get(name)) for name in known),
            *(_claim(name, pack.figures) for name in claimed),
        ]
        for task, pack in sorted(packs.items())
    ]
    return "\n".join(map(_row, [head, ["---"] * len(head), *rows]))


def _claimed(packs: Mapping[str, ListedPack]) -> list[str]:
    """Return the names of the figures that some pack claims."""
    return [name for name in _CLAIMED if any(name in pack.figures for pack in packs.values())]


def _claim(name: str, figures: Mapping[str, float]) -> str:
    """Return a claimed figure with its limit, such as ``0.008 (95 %: ≤ 0.009)``."""
    figure, limit = figures.get(name), figures.get(f"{name}_limit")
    confidence = figures.get("claimed_confidence")
    if figure is None or limit is None or confidence is None:
        return ""
    return f"{_figure(name, figure)} ({100 * confidence:.4g} %: {_CLAIMED[name][1]} {_figure(name, limit)})"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1%}".replace("%", " %") if name in _SHARES else f"{value:.3g}"
