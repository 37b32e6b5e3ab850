"""Heat maps of a run's model: seconds for an image, and whether they lie on the image of the class.

    python -m benchmarks.explain runs/quick --mosaics 20

The grid pointing game (Böhle, Fritz and Schiele 2021): mosaics of four validation images of different classes, each
classified correctly and with confidence; a map of each class. The mean fraction of the map within the class's own
quarter, and how often its largest value is there; 25 % by chance.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import cv2
import numpy as np

import animalclf
from animalclf.data.run_images import prepared_set_of
from animalclf.report.thumbnails import stored_images
from animalclf.runs import open_run
from benchmarks.common import argument_parser, write_json

SIDE = 144  # pixels of a quarter
MIN_CONFIDENCE = 0.5


@dataclass(frozen=True)
class Result:
    run: str
    seconds: float
    """Of `explain` for an image in memory, the median."""
    cpu_seconds: float
    """Of all threads, for the same."""
    mosaics: int
    fraction: float
    largest: float


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("run", help="a finished run with its prepared set")
    parser.add_argument("--mosaics", type=int, default=40)
    arguments = parser.parse_args()
    result = measure(arguments.run, arguments.mosaics)
    print(
        f"{result.run}: {result.seconds:.2f} s an image, {result.cpu_seconds:.2f} s of CPU; of the maps on "
        f"{result.mosaics} mosaics {result.fraction:.0%} and their largest values {result.largest:.0%} in the quarter "
        "of the class"
    )
    write_json(arguments.json, result)


def measure(root: str, count: int) -> Result:
    run, model = open_run(root), animalclf.load(root)
    table = run.predictions("val")
    table = table[(table["predicted"] == table["label"]) & (table["probability"] > MIN_CONFIDENCE)]
    images = stored_images(prepared_set_of(run), table["path"])
    generator, seconds, cpu_seconds, fractions, largest = np.random.default_rng(0), [], [], [], []
    for _ in range(count):
        rows = table.sample(len(table), random_state=generator).drop_duplicates("label").head(4)
        tiles = [cv2.resize(images[path], (SIDE, SIDE), interpolation=cv2.INTER_AREA) for path in rows["path"]]
        mosaic = np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
        for quarter, label in enumerate(rows["label"]):
            started, cpu_started = time.perf_counter(), time.process_time()
            (explanation,) = model.explain(mosaic, label)
            seconds.append(time.perf_counter() - started)
            cpu_seconds.append(time.process_time() - cpu_started)
            evidence = explanation.heat_map.reshape(2, SIDE, 2, SIDE).transpose(0, 2, 1, 3).reshape(4, -1)
            fractions.append(evidence[quarter].sum() / max(evidence.sum(), 1e-9))
            largest.append(evidence.max(1).argmax() == quarter)
    return Result(
        root,
        float(np.median(seconds)),
        float(np.median(cpu_seconds)),
        count,
        float(np.mean(fractions)),
        float(np.mean(largest)),
    )


if __name__ == "__main__":
    main()
