"""Heat maps over depth and module: side by side with common rows if they fit, else one below the other."""

from collections.abc import Callable
from dataclasses import dataclass

from dtscodec.messages import shorten
from dtscodec.report.markup import Markup, element, join
from dtscodec.report.module_grid import ModuleGrid, TensorGroup

WIDTH = 860
COLOUR_STEPS = 9
"""Steps of a colour scale; each is a class of the style sheet, which has dark and light colours."""

MAX_HEAT_MAP_ROWS = 40
LONGEST = 120
"""Most characters of a name in a tooltip; a hostile one may have a thousand."""

_LABEL, _CHARACTER = 28, 7.5
_ROW, _GAP, _HEAD = 22, 26, 40
_LEAST = 150
"""Least width of a panel, which its scale needs."""

_MOST, _TEXT = 34, 26
"""Largest width of a cell, and the least width at which it shows its figure."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity that a heat map shows.

    Parameters
    ----------
    title : str
        Its name.
    most : float
        Value at the end of its scale; larger ones have the same colour.
    value : callable
        Returns the value of a group; None if it has none.
    form : callable
        Formats a value.
    """

    title: str
    most: float
    value: Callable[[TensorGroup], float | None]
    form: Callable[[float], str]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Labels of all rows, and the number of those in layers, which come first."""

    labels: list[str]
    layers: int

    def top(self, row: int) -> float:
        """Return the top of a row in pixels; rows outside of layers follow after a gap."""
        return _HEAD + row * _ROW + (12 if row >= self.layers and self.layers else 0)


def heat_maps(grid: ModuleGrid, quantities: list[Quantity]) -> Markup:
    """Return one picture with a heat map for each quantity.

    Parameters
    ----------
    grid : ModuleGrid
        Groups of tensors; the first `MAX_HEAT_MAP_ROWS` modules in layers and outside of them are shown.
    quantities : list of Quantity
        The quantities.
    """
    layers, others = list(grid.layers)[:MAX_HEAT_MAP_ROWS], list(grid.others)[:MAX_HEAT_MAP_ROWS]
    rows = _Rows([*layers, *others], len(layers))
    # Modules outside of layers have one cell, in the first column.
    groups = [*(grid.layers[label] for label in layers), *({0: grid.others[label]} for label in others)]
    # Widths: labels, then one panel per quantity, side by side if cells stay wide enough for figures.
    margin = 10 + _CHARACTER * max((len(shorten(label, _LABEL)) for label in rows.labels), default=0)
    columns = max(1, len(grid.columns))
    share = (WIDTH - margin - _GAP * (len(quantities) - 1)) / len(quantities)
    together = share >= max(_LEAST, columns * _TEXT)
    cell = min(_MOST, (share if together else WIDTH - margin) / columns)
    panel = max(_LEAST, columns * cell) + _GAP
    height = rows.top(len(rows.labels)) + 34
    shapes: list[str] = []
    for position, quantity in enumerate(quantities):
        left = margin + (position * panel if together else 0)
        top = 0 if together else position * height
        # Panels side by side share the labels of rows.
        if position == 0 or not together:
            shapes.append(element("g", *_labels(rows, margin - 10), transform=f"translate(0 {top:g})"))
        shown = _panel(grid.columns, rows, groups, quantity, cell)
        shapes.append(element("g", shown, transform=f"translate({left:.2f} {top:g})"))
    total = height if together else height * len(quantities)
    names = " and ".join(quantity.title for quantity in quantities)
    described = f"Heat maps over depth and module: {names}. The table of all tensors has the same figures."
    return element(
        "svg", *shapes, role="img", aria_label=described, class_="heat", width=WIDTH, height=total,
        viewBox=f"0 0 {WIDTH} {total:g}",
    )  # fmt: skip


def _labels(rows: _Rows, right: float) -> list[Markup]:
    labels = []
    for row, label in enumerate(rows.labels):
        short = shorten(label, _LABEL)
        titled = [element("title", label)] if short != label else []
        y = rows.top(row) + _ROW / 2 + 4
        labels.append(element("text", *titled, short or "-", x=right, y=y, text_anchor="end"))
    return labels


def _panel(
    columns: tuple[str, ...], rows: _Rows, groups: list[dict[int, TensorGroup]], quantity: Quantity, cell: float
) -> Markup:
    shapes = [element("text", quantity.title, class_="title", y=12), *_depths(columns, cell)]
    for row, members in enumerate(groups):
        for column, group in members.items():
            shapes += _cell(group, quantity, (column * cell, rows.top(row)), cell)
    bottom = rows.top(len(groups)) + 10
    values = [value for row in groups for group in row.values() if (value := quantity.value(group)) is not None]
    return join([*shapes, _scale(quantity, bottom, max(values, default=0) > quantity.most)])


def _depths(columns: tuple[str, ...], cell: float) -> list[Markup]:
    """Return labels of depths: every n-th, so that they do not overlap."""
    every = -(-int(8 * max((len(label) for label in columns), default=1)) // max(1, int(cell))) or 1
    return [
        element("text", label, class_="axis", x=(i + 0.5) * cell, y=_HEAD - 8, text_anchor="middle")
        for i, label in enumerate(columns)
        if i % every == 0
    ]


def _cell(group: TensorGroup, quantity: Quantity, corner: tuple[float, float], width: float) -> list[Markup]:
    value, (x, y) = quantity.value(group), corner
    first = shorten(group.tensors[0].name, LONGEST)
    name = first if len(group.tensors) == 1 else f"{first} and {len(group.tensors) - 1} more"
    gap = 1 if width > 6 else 0
    step = "none" if value is None else f"h{_step(value, quantity.most)}"
    title = element("title", f"{name}: {'-' if value is None else quantity.form(value)}")
    shapes = [element("rect", title, class_=step, x=x, y=y, width=width - gap, height=_ROW - 1)]
    if width >= _TEXT and value is not None:
        shapes.append(
            element("text", quantity.form(value), class_=f"on{step}", x=x + (width - gap) / 2, y=y + _ROW / 2 + 3.5)
        )
    return shapes


def _step(value: float, most: float) -> int:
    return max(0, min(COLOUR_STEPS - 1, int(COLOUR_STEPS * value / most))) if most > 0 else 0


def _scale(quantity: Quantity, top: float, is_exceeded: bool) -> Markup:
    """Return the legend of a colour scale, from zero to its end."""
    most = quantity.form(quantity.most) + (" and more" if is_exceeded else "")
    steps = [element("rect", class_=f"h{i}", x=14 + 10 * i, y=top, width=10, height=8) for i in range(COLOUR_STEPS)]
    ends = [
        element("text", "0", class_="axis", x=0, y=top + 8),
        element("text", most, class_="axis", x=18 + 10 * COLOUR_STEPS, y=top + 8),
    ]
    return join([*steps, *ends])
