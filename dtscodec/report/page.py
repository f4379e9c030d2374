"""The page: one HTML file that needs nothing else, runs no script and fetches nothing."""

from functools import cache
from importlib.resources import files

from dtscodec.report import sections
from dtscodec.report.directory_page import folder_sections
from dtscodec.report.facts import FolderFacts, PackFacts
from dtscodec.report.markup import Markup, element, join, text
from dtscodec.version import __version__

_TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def page(facts: PackFacts | FolderFacts) -> str:
    """The page of a pack, or of a directory of packs. The same facts give the same text."""
    if isinstance(facts, FolderFacts):
        title, parts = facts.name, folder_sections(facts)
    else:
        title, parts = facts.title, _pack_sections(facts)
    footer = element("footer", f"Made by dtscodec {__version__} from the file alone: no network, no script.")
    body = join(Markup(part + "\n") for part in [*parts, footer])
    return _TEMPLATE.format(title=text(f"{title} - dtscodec"), style=style_sheet(), body=body)


def _pack_sections(facts: PackFacts) -> list[Markup]:
    return [
        element("header", element("p", "dtscodec pack", class_="over"), element("h1", facts.title)),
        sections.figures(facts),
        sections.identity(facts),
        sections.kinds(facts),
        sections.widths(facts),
        sections.layers(facts),
        sections.spectrum(facts),
        sections.reasons(facts),
        sections.files(facts),
        sections.tensors(facts),
    ]


@cache
def style_sheet() -> str:
    """The style sheet, which goes into each page."""
    return files("dtscodec.report").joinpath("page.css").read_text("utf-8")
