"""Documents as tests read them: blocks of code with their lines, commands, and links."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

ENDS_OF_COMMAND = {"|", "||", "&&", ";", ">", ">>", "2>", "&", "#"}


@dataclass(frozen=True)
class Document:
    """A Markdown file of the repository.

    Parameters
    ----------
    path : str
        From the root of the repository.
    """

    path: str

    @property
    def text(self) -> str:
        return (ROOT / self.path).read_text()

    def blocks(self) -> "Iterator[Block]":
        """Fenced blocks of code in order. One behind a comment ``<!-- not run: why -->`` is left out."""
        lines = self.text.splitlines()
        fences = [i for i, line in enumerate(lines) if line.lstrip().startswith("```")]
        for start, end in zip(fences[::2], fences[1::2], strict=True):
            if not (start and lines[start - 1].startswith("<!-- not run: ")):
                yield Block(self, lines[start].strip("` "), start + 1, "\n".join(lines[start + 1 : end]))

    def python(self) -> "list[Block]":
        return [block for block in self.blocks() if block.language == "python"]

    def commands(self) -> list[list[str]]:
        """Words of each command `dtscodec` in a block, without its name, as a shell splits them."""
        found = []
        for block in self.blocks():
            if block.language != "python":
                for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
                    if match := re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*dtscodec (?=[a-z-])(.*)", line):
                        found.append(_until_end(shlex.split(match[1], comments=True)))
        return found

    def inline(self) -> list[str]:
        """Spans of code in the prose."""
        prose = re.sub(r"^ *```.*?^ *```", "", self.text, flags=re.MULTILINE | re.DOTALL)
        return re.findall(r"`([^`\n]+)`", prose)

    def links(self) -> list[str]:
        """Targets of links and pictures that are no web addresses."""
        prose = re.sub(r"^ *```.*?^ *```|`[^`\n]+`", "", self.text, flags=re.MULTILINE | re.DOTALL)
        targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|href|srcset)=\"([^\"]+)\"", prose)
        return [target for pair in targets for target in pair if target and "://" not in target]

    def anchors(self) -> set[str]:
        """Anchors that GitHub gives the headings."""
        headings = re.findall(r"^#+ +(.+?)\s*$", self.text, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@dataclass(frozen=True)
class Block:
    """A block of code; `line` is that of the document before its first one."""

    document: Document
    language: str
    line: int
    text: str

    def run(self, names: dict[str, object]) -> None:
        """Execute it in a namespace. Tracebacks show the document's own lines."""
        exec(compile("\n" * self.line + self.text, ROOT / self.document.path, "exec"), names)


def _until_end(words: list[str]) -> list[str]:
    end = next((i for i, word in enumerate(words) if word in ENDS_OF_COMMAND), len(words))
    return words[:end]


def guides() -> list[Document]:
    """The README and the pages of docs/, whose examples are run."""
    return [Document("README.md"), *_under(ROOT / "docs", "*.md")]


def all_documents() -> list[Document]:
    """The guides, decision records, and everything else that people read."""
    names = ["CONTRIBUTING.md", "CHANGELOG.md"]
    return [
        *guides(),
        *map(Document, names),
        *_under(ROOT / "docs", "*/**/*.md"),
        *_under(ROOT / "spec", "**/*.md"),
        *_under(ROOT / "benchmarks", "**/*.md"),
    ]


def _under(folder: Path, pattern: str) -> list[Document]:
    return [Document(str(path.relative_to(ROOT))) for path in sorted(folder.glob(pattern))]
