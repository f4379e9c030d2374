"""The style of all pictures: colours for light and dark pages, no background, no frame."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The pictures have no background. This grey has equal contrast (4.3) to GitHub's light and dark pages.
INK = "#797979"
ACCENT = "#2f81f7"
PAPER = "#d1722c"
GREEN = "#6f9f6f"
TEXT = 10


def style_panel(axes: "Axes", title: str, below: str, beside: str = "") -> None:
    """Give a panel its title, the labels of its axes and a grid.

    Parameters
    ----------
    axes : Axes
    title : str
    below, beside : str
        Labels of the axes, with units.
    """
    axes.minorticks_off()
    axes.set_xlabel(below, color=INK, fontsize=TEXT)
    axes.set_ylabel(beside, color=INK, fontsize=TEXT)
    axes.set_title(title, loc="left", color=INK, fontsize=TEXT, fontweight="bold")
    axes.tick_params(labelcolor=INK, color=INK, labelsize=TEXT - 1)
    axes.grid(color=INK, alpha=0.25, linewidth=0.8)
    axes.spines[:].set_visible(False)


def save_picture(figure: "Figure", path: Path) -> None:
    """Write a figure without a background."""
    figure.savefig(path, dpi=160, transparent=True)
