"""HTML and SVG as values, and elements that sections share: tables, bars and legends.

Text is escaped unless it is `Markup`, which only this room makes.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from dtscodec.messages import printable


class Markup(str):
    """Text that needs no escaping, since it is markup."""

    __slots__ = ()


def text(content: str) -> Markup:
    r"""Return text as markup, escaped: names come from packs, which may be hostile.

    >>> text("<b>\x1b")
    '&lt;b&gt;\\x1b'
    """
    return content if isinstance(content, Markup) else Markup(escape(printable(content)))


def join(parts: Iterable[str]) -> Markup:
    """Return the concatenation of parts, each escaped unless it is markup."""
    return Markup("".join(text(part) for part in parts))


def element(tag: str, *children: str, **attributes: "str | float | None") -> Markup:
    """Return an element.

    Parameters
    ----------
    tag : str
        Its name.
    *children : str
        Its content; text that is not markup is escaped. An element without children is closed at once.
    **attributes : str, float or None
        Its attributes, of which a trailing underscore is removed and other underscores become hyphens. Those that are
        None are left out.

    Examples
    --------
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


def table_element(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Markup:
    """Return a table, of which the first column names the rows.

    Parameters
    ----------
    caption : str
        What the table shows, for screen readers.
    head : sequence of str
        Titles of the columns.
    rows : iterable of sequences of str
        Cells, each row as long as the head.
    left : int
        Number of leading columns that are aligned to the left; figures are aligned to the right.
    """
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


def bar(parts: Mapping[str, int], whole: int, width: float, height: float = 12) -> Markup:
    """Return a stacked bar.

    Parameters
    ----------
    parts : mapping
        Bytes of each part, by name. The name is also the CSS class that gives a part its colour.
    whole : int
        Bytes that the whole width stands for.
    width : float
        Width of the picture in pixels.
    height : float
        Its height in pixels.
    """
    shapes, begin = [], 0.0
    for name, count in parts.items():
        length = width * count / max(1, whole)
        if count:
            title = element("title", f"{name}: {count:,} bytes")
            # With a least width, so that a part of few bytes stays visible.
            shapes.append(element("rect", title, class_=f"k{name}", x=begin, width=max(length, 0.75), height=height))
        begin += length
    described = ", ".join(f"{name} {count:,} bytes" for name, count in parts.items() if count) or "no bytes"
    return element(
        "svg", *shapes or [element("g")], role="img", aria_label=described, class_="bar", width=width, height=height,
        viewBox=f"0 0 {width:g} {height:g}", preserveAspectRatio="none",
    )  # fmt: skip


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Return the legend of a bar's colours.

    Parameters
    ----------
    entries : sequence of (str, str)
        Name and description of each part.
    """
    items = [element("span", element("i", Markup(""), class_=f"k{name}"), described) for name, described in entries]
    return element("p", join(items), class_="legend")
