"""How a cost grows with a size: the exponent between the smallest and the largest size, and a chart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Costs = Sequence[tuple[int, float]]  # size and cost, the smallest size first


def exponent(costs: Costs) -> float:
    """The slope of the cost over the size in logarithms, between the first and the last; nan of one size."""
    (small, first), (large, last) = costs[0], costs[-1]
    return math.log(last / first) / math.log(large / small) if large > small else math.nan


def text(costs: Costs) -> str:
    """The exponent as text, empty of one size."""
    slope = exponent(costs)
    return "" if math.isnan(slope) else f"{slope:.2f}"


def draw(file: str | None, cost: str, size: str, lines: Mapping[str, Costs]) -> None:
    """A chart of costs over sizes, both in logarithms, with the exponent of each line, as `file` (.svg, .png) if that
    was given."""
    if not file:
        return
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "animalclf"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.4), layout="constrained")
    for name, costs in lines.items():
        axes.loglog(*zip(*costs, strict=True), marker="o", label=f"{name}: {text(costs)}")
    axes.set_xlabel(size)
    axes.set_ylabel(cost)
    axes.grid(alpha=0.3, which="both")
    axes.legend(title="exponent", frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    figure.savefig(file, metadata={"Date": None} if file.endswith(".svg") else None)
