"""Bars: shares of one whole, stacked, with a legend of their own."""

from collections.abc import Mapping, Sequence

from dtscodec.report.markup import Markup, element, join


def bar(parts: Mapping[str, int], whole: int, width: float, height: float = 12) -> Markup:
    """One bar of parts; `whole` is as long as `width`.

    Parameters
    ----------
    parts : mapping
        By name, which is also the class that gives a part its colour.
    whole : int
    width, height : float
        In pixels.
    """
    shapes, begin = [], 0.0
    for name, count in parts.items():
        length = width * count / max(1, whole)
        if count:
            title = element("title", f"{name}: {count:,} bytes")
            shapes.append(element("rect", title, class_=f"k{name}", x=begin, width=max(length, 0.75), height=height))
        begin += length
    described = ", ".join(f"{name} {count:,} bytes" for name, count in parts.items() if count) or "no bytes"
    return element(
        "svg", *shapes or [element("g")], role="img", aria_label=described, class_="bar", width=width, height=height,
        viewBox=f"0 0 {width:g} {height:g}", preserveAspectRatio="none",
    )  # fmt: skip


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Return the legend of colours: pairs of a part's name and a description."""
    items = [element("span", element("i", Markup(""), class_=f"k{name}"), described) for name, described in entries]
    return element("p", join(items), class_="legend")
