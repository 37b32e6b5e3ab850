"""Throughput and timing of the finished runs."""

from animalclf.report.data import ReportData, RunRecord
from animalclf.report.section import Content, register
from animalclf.training.checks import trains_on_features

# Key of result.json's "time" -> heading.
FEATURES = {"features": "base features"}  # shown if a run has computed them
PARTS = {
    "step": "training steps",
    "validate": "validation",
    "checkpoint": "checkpoints",
    "augment": "augmentation tasks",
}
# The report gives advice on data loading above both.
MAX_WAIT = 0.05  # fraction of the time
MAX_WAIT_SECONDS = 30.0  # a short run waits for its first images only


@register("throughput", title="Throughput and timing", order=120, when=lambda data: bool(data.finished))
def throughput(data: ReportData) -> Content:
    runs = [(record.label, record.result) for record in data.finished if record.result]
    slow = [record.label for record in data.finished if waits_for_images(record)]
    parts = (FEATURES if any(result.time and result.time.features for _, result in runs) else {}) | PARTS
    on_features = [record.label for record in data.finished if trains_on_features(record.config)]
    values = {"runs": runs, "parts": parts, "on_features": on_features, "slow": slow, "max_wait": MAX_WAIT}
    return Content(values)


def waits_for_images(record: RunRecord) -> bool:
    """Whether faster data loading would shorten a finished run noticeably. A head on cached features loads none."""
    result = record.result
    if not result or trains_on_features(record.config):
        return False
    return result.wait_fraction > MAX_WAIT and result.wait_fraction * result.seconds > MAX_WAIT_SECONDS
