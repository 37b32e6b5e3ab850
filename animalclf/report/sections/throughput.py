"""Throughput and timing of the finished runs."""

from animalclf.report.data import ReportData
from animalclf.report.section import Content, register

# Key of result.json's "time" -> heading.
FEATURES = {"features": "base features"}  # shown if a run has computed them
PARTS = {
    "step": "training steps",
    "validate": "validation",
    "checkpoint": "checkpoints",
    "augment": "augmentation tasks",
}
MAX_WAIT = 0.05  # fraction of the time spent on data loading above which the report gives advice


@register("throughput", title="Throughput and timing", order=120, when=lambda data: bool(data.finished))
def throughput(data: ReportData) -> Content:
    runs = [(record.label, record.result) for record in data.finished if record.result]
    slow = [label for label, result in runs if result.wait_fraction > MAX_WAIT]
    parts = (FEATURES if any(result.time and result.time.features for _, result in runs) else {}) | PARTS
    return Content({"runs": runs, "parts": parts, "slow": slow, "max_wait": MAX_WAIT})
