"""HTML and SVG as values: text is escaped unless it is `Markup`, which only this room makes."""

from collections.abc import Iterable, Sequence
from html import escape

from dtscodec.report.formatting import printable


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def text(content: str) -> Markup:
    r"""Text as markup. Names come out of packs, which may be hostile.

    >>> text("<b>\x1b")
    '&lt;b&gt;\\x1b'
    """
    return content if isinstance(content, Markup) else Markup(escape(printable(content)))


def join(parts: Iterable[str]) -> Markup:
    """Parts one after another."""
    return Markup("".join(text(part) for part in parts))


def element(tag: str, *children: str, **attributes: "str | float | None") -> Markup:
    """An element. Attributes lose a trailing underscore; others become hyphens; None leaves one out.

    >>> element("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    >>> element("rect", x=1.50, stroke_width=2)
    '<rect x="1.5" stroke-width="2"/>'
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(_value(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>" if children else f"<{tag}{written}/>")


def _value(value: "str | float") -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Markup:
    """A table. The first column names its rows; the first `left` ones are flush left, figures flush right."""
    titles = [element("th", title, scope="col", class_="l" if i < left else None) for i, title in enumerate(head)]
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(
                element("td", text(cell) or Markup(" "), class_="l" if i < left else None)
                for i, cell in enumerate(row[1:], 1)
            ),
        )
        for row in rows
    ]
    parts = [
        element("caption", caption),
        element("thead", element("tr", *titles)),
        element("tbody", Markup("\n"), *body),
    ]
    return element("div", element("table", *parts), class_="wide")
