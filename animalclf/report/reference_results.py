"""The reference notebook's results: its training histories at the epochs that its author published."""

from __future__ import annotations

# Model -> (epoch, train accuracy, validation accuracy, train loss, validation loss), from the notebook's tables
# "Big CNN" and "Transfer learning"; of the class-balanced CNN it says only that it brought no real gain. Its
# validation images were augmented, and a random fifth of all.
REFERENCE: dict[str, list[tuple[int, float, float, float, float]]] = {
    "big_cnn": [
        (10, 0.4297, 0.1825, 1.6925, 2.2247),
        (30, 0.5859, 0.5233, 1.2179, 1.4879),
        (50, 0.6875, 0.6773, 0.9265, 1.1082),
        (70, 0.7812, 0.7505, 0.6469, 0.7938),
        (90, 0.9297, 0.8030, 0.2579, 0.6533),
        (110, 0.8984, 0.8193, 0.4315, 0.6422),
    ],
    "vgg16": [(10, 0.9457, 0.9178, 0.1566, 0.2671), (20, 0.9660, 0.9433, 0.1017, 0.1941)],
}


def reference_rows(model: str) -> list[tuple[int, float, float, float, float]]:
    """The notebook's results for config.model.name; empty for a model that it does not have."""
    return REFERENCE.get(model, [])
