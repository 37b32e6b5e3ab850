"""Input pipelines that decode once, of other libraries, for `benchmarks.peers`. It runs in an environment of its own,
without animalclf:

    PYTHON benchmarks/peer_loaders.py NAME images.npy EPOCHS CORES

Prints the images/s of the epochs after the first, and the seconds to the first batch; ends with NOT_INSTALLED if the
library is missing. All read the same stored images uint8 (N, S, S, 3) and make batches of BATCH by the same random
affine warp: OpenCV's, or TensorFlow's own.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cv2
import numpy as np

BATCH, SIZE = 128, 128
NOT_INSTALLED = 3  # exit status
ANGLE, SHIFT, ZOOM = 25.0, 0.2, 0.4  # of the reference notebook: degrees, and fractions

Epoch = Callable[[], Iterator[Any]]  # the batches of one epoch


def random_map(side: int) -> np.ndarray:
    """A random affine map from output to input pixels, float32 (2, 3): rotation, shift, zoom and mirroring of a stored
    image of `side` pixels. Drawn by `random`, in which every worker process has a state of its own."""
    angle, scale = math.radians(random.uniform(-ANGLE, ANGLE)), side / SIZE
    across, down = (scale * random.uniform(1 - ZOOM, 1 + ZOOM) for _ in range(2))
    across = math.copysign(across, random.random() - 0.5)
    cosine, sine, middle = math.cos(angle), math.sin(angle), (SIZE - 1) / 2
    a, b, c, d = across * cosine, -down * sine, across * sine, down * cosine
    x, y = ((side - 1) / 2 + side * random.uniform(-SHIFT, SHIFT) for _ in range(2))
    return np.array([[a, b, x - (a + b) * middle], [c, d, y - (c + d) * middle]], np.float32)


def random_warp(image: np.ndarray) -> np.ndarray:
    """In a worker process: the image warped at random."""
    cv2.setNumThreads(1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, random_map(len(image)), (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def tf_data(images: np.ndarray, folder: str, cores: int) -> Epoch:
    """`cache()` of the stored images, then a shuffle and a batched warp."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(cores)
    tf.config.threading.set_inter_op_parallelism_threads(cores)

    def projections(shape: np.ndarray) -> np.ndarray:
        maps = np.stack([random_map(int(shape[1])) for _ in range(shape[0])])
        return np.pad(maps.reshape(-1, 6), ((0, 0), (0, 2)))

    def augment(batch: Any) -> Any:
        maps = tf.numpy_function(projections, [tf.shape(batch)], tf.float32)
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=batch,
            transforms=tf.ensure_shape(maps, (None, 8)),
            output_shape=[SIZE, SIZE],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )

    def generate() -> Iterator[np.ndarray]:
        yield from images

    spec = tf.TensorSpec(images.shape[1:], tf.uint8)
    dataset = tf.data.Dataset.from_generator(generate, output_signature=spec).cache().shuffle(len(images))
    return lambda: iter(dataset.batch(BATCH).map(augment, num_parallel_calls=cores).prefetch(tf.data.AUTOTUNE))


def litdata(images: np.ndarray, folder: str, cores: int) -> Epoch:
    """Optimized chunks of the stored images on local disk, and its own data loader."""
    from litdata import StreamingDataLoader, StreamingDataset, optimize

    np.save(f"{folder}/images.npy", images)
    optimize(
        fn=partial(_sample, f"{folder}/images.npy"),
        inputs=list(range(len(images))),
        output_dir=f"{folder}/lit",
        chunk_bytes="64MB",
        num_workers=1,
    )
    dataset = StreamingDataset(f"{folder}/lit", shuffle=True, transform=_warped)
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=cores, persistent_workers=True)
    return lambda: iter(loader)


def _sample(file: str, row: int) -> dict[str, np.ndarray]:
    return {"image": np.array(np.load(file, mmap_mode="r")[row])}


def _warped(sample: dict[str, np.ndarray]) -> np.ndarray:
    return random_warp(sample["image"])


def mosaicml(images: np.ndarray, folder: str, cores: int) -> Epoch:
    """MDS shards of the stored images on local disk, and torch's data loader."""
    import torch
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=f"{folder}/mds", columns={"image": "ndarray"}) as writer:
        for image in images:
            writer.write({"image": image})

    class Warped(StreamingDataset):
        def __getitem__(self, index: Any) -> np.ndarray:
            return random_warp(super().__getitem__(index)["image"])

    dataset = Warped(local=f"{folder}/mds", shuffle=True, batch_size=BATCH)
    loader: Any = torch.utils.data.DataLoader(dataset, BATCH, num_workers=cores, persistent_workers=True)
    return lambda: iter(loader)


def ray_data(images: np.ndarray, folder: str, cores: int) -> Epoch:
    """The stored images as a materialized dataset, augmented in `map_batches`, as Ray's guides recommend."""
    import ray.data

    ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.from_numpy(np.array_split(images, max(1, len(images) // 256))).materialize()

    def augment(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"image": np.stack([random_warp(image) for image in batch["data"]])}

    def epoch() -> Iterator[Any]:
        shuffled = dataset.randomize_block_order().map_batches(augment, batch_size=BATCH)
        return iter(shuffled.iter_torch_batches(batch_size=BATCH, prefetch_batches=2))

    return epoch


LOADERS = {"tf.data": tf_data, "LitData": litdata, "MosaicML": mosaicml, "Ray Data": ray_data}
PACKAGES = {"tf.data": "tensorflow", "LitData": "litdata", "MosaicML": "streaming", "Ray Data": "ray"}


def size(batch: Any) -> int:
    return len(batch["image"] if isinstance(batch, dict) else batch)


def main() -> None:
    name, file, epochs, cores = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    try:
        __import__(PACKAGES[name])
    except ImportError:
        sys.exit(NOT_INSTALLED)
    images = np.load(file)
    with tempfile.TemporaryDirectory() as folder:
        epoch = LOADERS[name](images, folder, cores)
        started, first_batch, timed_from, rows = time.perf_counter(), 0.0, 0.0, 0
        for number in range(epochs + 1):
            timed_from = timed_from if number != 1 else time.perf_counter()
            for batch in epoch():
                first_batch = first_batch or time.perf_counter() - started
                rows += size(batch) if number else 0
        speed = rows / (time.perf_counter() - timed_from)
    print(json.dumps({"images_per_s": speed, "first_batch_s": first_batch, "rows": rows}), flush=True)
    os._exit(0)  # worker processes of a library may hang at exit


if __name__ == "__main__":
    main()
