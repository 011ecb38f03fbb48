"""Goodput over time as a picture: one panel for each transport, one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tcpls.errors import ConfigurationError
from tcpls.lab.results import Run, by_transport, median_run
from tcpls.lab.scenarios import Scenario

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 0.1
"""Seconds of a step of the line."""

COLOURS = {"tcpls": "#1b6ca8", "mptcp": "#c8553d", "tcp": "#5f6b6d"}
EVENTS = "#333333"


def check() -> None:
    """Raises `ConfigurationError` if matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigurationError("plots need matplotlib: pip install 'tcpls[lab]'; or say --no-plot") from None


def write_png(scenario: Scenario, runs: Sequence[Run], folder: Path) -> Path:
    """Draws the run of the median time of each transport, and the others faintly behind it."""
    check()
    # Not pyplot: it would look for a display, and keeps what it has drawn.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = by_transport(runs)
    figure = Figure(figsize=(9.0, 1.3 + 1.9 * len(groups)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(groups), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for panel, (transport, same) in zip(panels, groups.items(), strict=True):
        _draw(panel, transport, same)
    panels[-1].set_xlabel("seconds")
    panels[0].set_ylim(bottom=0)
    panels[0].set_xlim(left=0)
    figure.supylabel(f"goodput, Mb/s (over {1000 * WIDTH:g} ms)", fontsize="medium")
    figure.suptitle(f"{scenario.name}: {scenario.about}", fontsize="medium")
    path = folder / f"{scenario.name}.png"
    figure.savefig(path, dpi=120)
    return path


def _draw(panel: Axes, transport: str, runs: Sequence[Run]) -> None:
    colour = COLOURS.get(transport, "#444444")
    shown = median_run(runs)
    for run in runs:
        if run is not shown:
            _line(panel, run, colour, alpha=0.25, linewidth=0.8)
    _line(panel, shown, colour, alpha=1.0, linewidth=1.5)
    moments, rates = _steps(shown)
    panel.fill_between(moments, rates, step="post", color=colour, alpha=0.15)
    if not shown.complete:
        panel.axvline(shown.seconds, color=colour, linewidth=1.5, linestyle="dotted")
    # Without those in the very same moment: their words would cover each other.
    last = -1.0
    for event in shown.events:
        panel.axvline(event.at, color=EVENTS, linewidth=0.8, linestyle="dashed")
        if event.expect and event.at - last > 0.1:
            where = (event.at, 1.0)
            panel.annotate(
                event.what, where, xycoords=("data", "axes fraction"), xytext=(3, -3), textcoords="offset points",
                rotation=90, va="top", ha="left", fontsize="x-small", color=EVENTS,
            )  # fmt: skip
            last = event.at
    panel.set_title(_caption(transport, shown, len(runs)), loc="left", fontsize="small", color=colour)
    panel.grid(axis="y", alpha=0.3)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _steps(run: Run) -> tuple[list[float], list[float]]:
    bins = run.bins(WIDTH)
    return [moment for moment, _ in bins], [8e-6 * count / WIDTH for _, count in bins]


def _line(panel: Axes, run: Run, colour: str, *, alpha: float, linewidth: float) -> None:
    moments, rates = _steps(run)
    panel.step(moments, rates, where="post", color=colour, alpha=alpha, linewidth=linewidth)


def _caption(transport: str, run: Run, count: int) -> str:
    which = f"median of {count} runs" if count > 1 else "one run"
    if run.complete:
        what = f"{run.size / 1e6:g} MB in {run.total_time:.1f} s, largest gap {run.largest_gap():.2f} s"
    else:
        what = f"{run.received / 1e6:.1f} of {run.size / 1e6:g} MB; {run.ended}"
    return f"{transport}: {what} ({which})"
