"""How our pictures look: colours that serve on light and dark pages, and no frame."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The pictures have no background. This grey has equal contrast (4.3) to GitHub's light and dark pages.
INK = "#797979"
ACCENT = "#2f81f7"
PAPER = "#d1722c"
GREEN = "#6f9f6f"
TEXT = 10


def dress(axes: "Axes", title: str, below: str, beside: str = "") -> None:
    """Give a panel its title, the labels of its axes and a grid.

    Parameters
    ----------
    axes : Axes
    title : str
    below, beside : str
        What the axes show, with its unit.
    """
    axes.minorticks_off()
    axes.set_xlabel(below, color=INK, fontsize=TEXT)
    axes.set_ylabel(beside, color=INK, fontsize=TEXT)
    axes.set_title(title, loc="left", color=INK, fontsize=TEXT, fontweight="bold")
    axes.tick_params(labelcolor=INK, color=INK, labelsize=TEXT - 1)
    axes.grid(color=INK, alpha=0.25, linewidth=0.8)
    axes.spines[:].set_visible(False)
