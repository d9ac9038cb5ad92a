"""Colours of a page in light and in dark, and how a figure becomes the bytes of a picture.

Figures are drawn in the colours of the light theme. In SVG each of them becomes a CSS variable, so that
one picture serves both themes; a PNG stays light.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK, MUTED, GRID, SURFACE = "#1c2127", "#5d6772", "#e3e7eb", "#fdfdfe"
# Told apart by those who see few colours, too, and three to one against both surfaces or better.
PALETTE = ("#1a6fb5", "#c4560a", "#12815a", "#8b4cc0", "#c02a4c", "#0c7c8c", "#86602f", "#59646e")
_DARK = {
    INK: "#e6eaee",
    MUTED: "#a3adb7",
    GRID: "#333b43",
    SURFACE: "#14181c",
    **dict(
        zip(
            PALETTE,
            ("#6fb4f0", "#f79a52", "#4cc795", "#c79df0", "#fb8096", "#4fc9d8", "#d1ab78", "#aab5bf"),
            strict=True,
        )
    ),
}
STYLES = ("-", "--", ":", "-.")  # once all colours are used
MOST = len(PALETTE) * len(STYLES)
_RESOLUTION = 160  # dots an inch

RULES: dict[Any, Any] = {
    "axes.edgecolor": MUTED,
    "axes.facecolor": SURFACE,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "figure.facecolor": SURFACE,
    "font.family": "sans-serif",
    "font.size": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "savefig.facecolor": SURFACE,
    "svg.fonttype": "none",
    "svg.hashsalt": "mlless",  # so that ids come out the same every time
    "text.color": INK,
    "text.parse_math": False,  # a run may be called $x$
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def color_of(number: int) -> str:
    """Return the colour of the run, activity or item of that number."""
    return PALETTE[number % len(PALETTE)]


def style_of(number: int) -> str:
    """Return the line style of the run of that number."""
    return STYLES[number // len(PALETTE) % len(STYLES)]


def variable(color: str) -> str:
    """Return the CSS variable of a colour of the light theme."""
    return f"var(--c{color.removeprefix('#')})"


def theme(*, dark: bool) -> Iterator[str]:
    """Yield the CSS declarations of a theme, one a colour."""
    for color, in_the_dark in _DARK.items():
        yield f"--c{color.removeprefix('#')}: {in_the_dark if dark else color};"


@contextmanager
def styled() -> Iterator[None]:
    """Draw by these rules alone, whatever a user's own settings of Matplotlib are."""
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # of a run's name
        mpl.rcdefaults()
        mpl.rcParams.update(RULES)
        yield


def png(figure: Figure, legend: float) -> bytes:
    """Return the figure as a PNG, higher by the inches of its legend; the same figure, the same bytes."""
    target, height = io.BytesIO(), figure.get_figheight()
    with styled():
        figure.set_figheight(height + legend)
        figure.savefig(target, format="png", dpi=_RESOLUTION, metadata={"Software": None})
        figure.set_figheight(height)
    return target.getvalue()


def svg(figure: Figure, name: str) -> str:
    """Return the figure as an SVG element, without title and legend, which a page gives in its own words.

    ``name`` keeps its ids apart from those of other figures of the page.
    """
    for legend in list(figure.legends):
        legend.remove()
    for axes in figure.axes:
        axes.set_title("", loc="left")
    target = io.StringIO()
    with styled():
        figure.savefig(target, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator")))
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(
        r'<svg [^>]*?viewBox="(.*?)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1
    )
    return re.sub(r"<[^>]+>", lambda tag: _themed(tag[0], name), text)


def _themed(tag: str, name: str) -> str:
    """Return a tag with ids of its figure's own, and with variables for colours."""
    tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    return re.sub("|".join(_DARK), lambda found: variable(found[0]), tag)
