"""The tables of a plan, on standard error."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from animalclf.rows import ComparisonPlan, TrainingPlan
from animalclf.utils.console import duration
from animalclf.utils.text import count_text, size_text

SHORTEST = 0.5  # seconds of a phase that is shown
NAMES = {"worker": "each worker", "total": "all processes", "object_store": "images in the object store", "gpu": "GPU"}


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size_text(size)}" for name, size in sizes.items())


def training_table(plan: TrainingPlan) -> Table:
    """A training before it starts."""
    table = Table(title=Text(f"{plan.recipe}: plan, nothing is written"), title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    about = "" if plan.is_prepared else "about "
    rows = ", ".join(f"{split} {about}{count:,}" for split, count in plan.rows.items() if count)
    table.add_row("images", rows + ("" if plan.is_prepared else " (to be prepared)"))
    names = sorted(plan.class_counts, key=lambda name: plan.class_counts[name])
    smallest, largest = names[0], names[-1]
    spread = (
        f"{smallest} {plan.class_counts[smallest]:,} to {largest} {count_text(plan.class_counts[largest], 'image')}"
    )
    table.add_row("classes", Text(f"{len(names)}: {spread}, imbalance {plan.imbalance:.1f}"))
    measured = plan.measured
    table.add_row("parameters", f"{measured.parameters:,}, of which {measured.trainable:,} are trained")
    table.add_row("steps", _steps(plan))
    device = "GPU" if measured.device == "cuda" else "CPU"
    table.add_row("workers", f"{plan.workers} on {device}, {measured.precision} ({plan.machine})")
    for name, size in plan.memory.items():
        room = f" of {size_text(plan.room[name])}" if plan.room.get(name) else ""
        table.add_row(f"memory, {NAMES[name]}", f"{size_text(size)}{room}")
    table.add_row("read", _sizes(plan.read))
    table.add_row("written", f"{_sizes(plan.written)}; checkpoints of all epochs at most {size_text(plan.rewritten)}")
    phases = ", ".join(f"{name} {duration(value)}" for name, value in plan.seconds.items() if value >= SHORTEST)
    table.add_row("time", f"about {duration(plan.total_seconds)} ({phases})")
    table.add_row("cost", cost_text(plan))
    table.add_row("run folder", Text(plan.run))
    return table


def _steps(plan: TrainingPlan) -> str:
    trainings = f" for each of {plan.trainings} trainings" if plan.trainings > 1 else ""
    if not plan.steps:
        return f"none: heads are fitted on features{trainings}"
    epochs = count_text(plan.epochs, "epoch")
    return f"{plan.steps * plan.epochs:,}: {epochs} of {plan.steps:,}{trainings}"


def cost_text(plan: TrainingPlan | ComparisonPlan) -> str:
    """`0.2 GPU-hours on 2 GPUs, 0.80 at 4 an hour`."""
    first = plan if isinstance(plan, TrainingPlan) else plan.costs[0].plan
    device = "GPU" if first.measured.device == "cuda" else "node"
    text = f"{plan.device_hours:.3g} {device}-hours on {plan.devices} {device}{'s' * (plan.devices > 1)}"
    if plan.price is not None and plan.price_per_hour is not None:
        text += f": {plan.price:.2f} at {plan.price_per_hour:g} for a {device}-hour"
    return text


def comparison_table(plan: ComparisonPlan) -> Table:
    """A comparison before it starts: the trials that cost the same in one row."""
    table = Table(title=Text("comparison: plan, nothing is written"), title_justify="left")
    for heading in ("trials", "recipe", "one of them", "memory of a worker"):
        table.add_column(heading, justify="left" if heading == "recipe" else "right")
    for cost in plan.costs:
        more = f" and {cost.trials - 1} alike" if cost.trials > 1 else ""
        memory = size_text(cost.plan.memory["worker"])
        table.add_row(str(cost.trials), Text(f"{cost.name}{more}"), duration(cost.seconds), memory)
    return table


def comparison_lines(plan: ComparisonPlan) -> list[str]:
    """The sum of a comparison."""
    pace = "one at a time" if plan.concurrent == 1 else f"{plan.concurrent} at a time"
    total = f"{count_text(plan.trials, 'trial')}, {pace}: about {duration(plan.total_seconds)}"
    if plan.schedule == "asha":
        total += f" expected with ASHA, at most {duration(plan.most_seconds)}"
    return [
        f"{total}; {duration(plan.shared_seconds)} of it for start, preparation and end",
        f"cost: {cost_text(plan)}",
    ]
