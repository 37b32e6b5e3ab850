"""Input pipelines that decode once, of other libraries, for `benchmarks.peers`. It runs in an environment of its own,
without animalclf:

    PYTHON benchmarks/peer_loaders.py NAME images.npy SETTLE EPOCHS CORES [s3://BUCKET]

Prints the images per second and per CPU second of EPOCHS epochs after the first SETTLE ones, and the seconds of the
first epoch, which begin when the stored images are opened; ends with NOT_INSTALLED if the library is missing. All read
the same stored images uint8 (N, S, S, 3), which each has written in its own format before, and make batches of BATCH by
the same random affine warp.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
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
Start = Callable[[], Epoch]  # opens the stored images


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


def random_warp(image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """In a worker process: the image warped at random."""
    cv2.setNumThreads(1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, random_map(len(image)), (SIZE, SIZE), out, flags, cv2.BORDER_REPLICATE)


def random_warps(images: np.ndarray) -> np.ndarray:
    """A batch warped at random."""
    out = np.empty((len(images), SIZE, SIZE, 3), np.uint8)
    for image, view in zip(images, out, strict=True):
        random_warp(image, view)
    return out


def publish(path: str, bucket: str | None) -> str:
    """Where the library reads the folder `path`: there, or in the bucket, to which it is moved."""
    if not bucket:
        return path
    import boto3

    client, name = boto3.client("s3"), os.path.basename(path)
    for folder, _, files in os.walk(path):
        for file in files:
            key = os.path.join(name, os.path.relpath(os.path.join(folder, file), path))
            client.upload_file(os.path.join(folder, file), bucket.removeprefix("s3://"), os.path.normpath(key))
    shutil.rmtree(path)
    return f"{bucket}/{name}"


def torch_loader(images: np.ndarray, folder: str, cores: int, bucket: str | None) -> Start:
    """torch's data loader over an array in memory: no library at all."""
    import torch

    class Warped(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> np.ndarray:
            return random_warp(images[index])

    def start() -> Epoch:
        loader: Any = torch.utils.data.DataLoader(
            Warped(), BATCH, shuffle=True, num_workers=cores, persistent_workers=True
        )
        return lambda: iter(loader)

    return start


def tf_data(images: np.ndarray, folder: str, cores: int, bucket: str | None, own_warp: bool = False) -> Start:
    """`cache()` of the stored images, a shuffle, and a warp of each batch: OpenCV's, or TensorFlow's operation."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(cores)
    tf.config.threading.set_inter_op_parallelism_threads(cores)

    def projections(shape: np.ndarray) -> np.ndarray:
        maps = np.stack([random_map(int(shape[1])) for _ in range(shape[0])])
        return np.pad(maps.reshape(-1, 6), ((0, 0), (0, 2)))

    def augment(batch: Any) -> Any:
        if not own_warp:
            return tf.numpy_function(random_warps, [batch], tf.uint8)
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

    def start() -> Epoch:
        spec = tf.TensorSpec(images.shape[1:], tf.uint8)
        dataset = tf.data.Dataset.from_generator(generate, output_signature=spec).cache().shuffle(len(images))
        return lambda: iter(dataset.batch(BATCH).map(augment, num_parallel_calls=cores).prefetch(tf.data.AUTOTUNE))

    return start


def litdata(images: np.ndarray, folder: str, cores: int, bucket: str | None) -> Start:
    """Optimized chunks of the stored images, and its own data loader."""
    from litdata import StreamingDataLoader, StreamingDataset, optimize
    from litdata.streaming import downloader

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # a local server has no TLS, and no option allows that
    np.save(f"{folder}/images.npy", images)
    optimize(
        fn=partial(_sample, f"{folder}/images.npy"),
        inputs=list(range(len(images))),
        output_dir=f"{folder}/lit",
        chunk_bytes="64MB",
        num_workers=1,
        start_method="fork",  # it sets that of the data loader too, which forks elsewhere
    )
    source = publish(f"{folder}/lit", bucket)

    def start() -> Epoch:
        dataset = StreamingDataset(source, cache_dir=f"{folder}/cache", shuffle=True, transform=_warped)
        loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=cores, persistent_workers=True)
        return lambda: iter(loader)

    return start


def _sample(file: str, row: int) -> dict[str, np.ndarray]:
    return {"image": np.array(np.load(file, mmap_mode="r")[row])}


def _warped(sample: dict[str, np.ndarray]) -> np.ndarray:
    return random_warp(sample["image"])


def mosaicml(images: np.ndarray, folder: str, cores: int, bucket: str | None) -> Start:
    """MDS shards of the stored images, and torch's data loader."""
    import torch
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(
        out=f"{folder}/mds", columns={"image": f"ndarray:uint8:{','.join(map(str, images.shape[1:]))}"}
    ) as writer:
        for image in images:
            writer.write({"image": image})

    class Warped(StreamingDataset):
        def __getitem__(self, index: Any) -> np.ndarray:
            return random_warp(super().__getitem__(index)["image"])

    source = publish(f"{folder}/mds", bucket)
    places = {"remote": source, "local": f"{folder}/cache"} if bucket else {"local": source}

    def start() -> Epoch:
        dataset = Warped(**places, shuffle=True, batch_size=BATCH)
        loader: Any = torch.utils.data.DataLoader(dataset, BATCH, num_workers=cores, persistent_workers=True)
        return lambda: iter(loader)

    return start


def ffcv(images: np.ndarray, folder: str, cores: int, bucket: str | None) -> Start:
    """Raw images of a .beton file. Its operations are compiled by numba, so it warps by numba too (`numba_warp`)."""
    from dataclasses import replace

    from ffcv.fields import RGBImageField
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.compiler import Compiler
    from ffcv.pipeline.operation import Operation
    from ffcv.transforms import ToTensor
    from ffcv.writer import DatasetWriter

    class Warp(Operation):
        def generate_code(self) -> Callable[..., np.ndarray]:
            compiled_range, warp = Compiler.get_iterator(), Compiler.compile(numba_warp)
            angle, shift, zoom = math.radians(ANGLE), SHIFT, ZOOM

            def augment(batch: np.ndarray, out: np.ndarray) -> np.ndarray:
                draws = np.random.uniform(-1.0, 1.0, (len(batch), 6)).astype(np.float32)  # noqa: NPY002
                for row in compiled_range(len(batch)):
                    warp(batch[row], draws[row], angle, shift, zoom, out[row])
                return out[: len(batch)]

            parallel: Any = augment
            parallel.is_parallel = True
            return parallel

        def declare_state_and_memory(self, previous_state: Any) -> Any:
            shape = (SIZE, SIZE, 3)
            return replace(previous_state, shape=shape, jit_mode=True), AllocationQuery(shape, np.dtype("uint8"))

    class Rows:
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[np.ndarray]:
            return (images[index],)

    file = f"{folder}/images.beton"
    DatasetWriter(file, {"image": RGBImageField(write_mode="raw")}, num_workers=1).from_indexed_dataset(Rows())

    def start() -> Epoch:
        pipelines = {"image": [SimpleRGBImageDecoder(), Warp(), ToTensor()]}
        loader = Loader(file, BATCH, cores, order=OrderOption.RANDOM, drop_last=False, pipelines=pipelines)
        return lambda: (batch for (batch,) in loader)

    return start


def numba_warp(image: np.ndarray, draws: np.ndarray, angle: float, shift: float, zoom: float, out: np.ndarray) -> None:
    """The warp of `random_warp` in code that numba compiles: bilinear, the border repeated. `draws`: six numbers from
    -1 to 1."""
    side, size = image.shape[0], out.shape[0]
    scale, middle = side / size, (size - 1) / 2
    turn, across, down = draws[0] * angle, scale * (1 + draws[1] * zoom), scale * (1 + draws[2] * zoom)
    if draws[3] < 0:
        across = -across
    cosine, sine = math.cos(turn), math.sin(turn)
    a, b, c, d = (
        np.float32(across * cosine),
        np.float32(-down * sine),
        np.float32(across * sine),
        np.float32(down * cosine),
    )
    left = np.float32((side - 1) / 2 + side * shift * draws[4] - (a + b) * middle)
    top = np.float32((side - 1) / 2 + side * shift * draws[5] - (c + d) * middle)
    last = side - 1
    for y in range(size):
        for x in range(size):
            px, py = a * np.float32(x) + b * np.float32(y) + left, c * np.float32(x) + d * np.float32(y) + top
            fx, fy = math.floor(px), math.floor(py)
            wx, wy = np.int32((px - fx) * 256), np.int32((py - fy) * 256)  # of 256 parts, which is faster than floats
            x0, y0 = min(max(int(fx), 0), last), min(max(int(fy), 0), last)
            x1, y1 = min(max(int(fx) + 1, 0), last), min(max(int(fy) + 1, 0), last)
            for channel in range(3):
                upper = image[y0, x0, channel] * (256 - wx) + image[y0, x1, channel] * wx
                lower = image[y1, x0, channel] * (256 - wx) + image[y1, x1, channel] * wx
                out[y, x, channel] = (upper * (256 - wy) + lower * wy + 32768) >> 16


def ray_data(images: np.ndarray, folder: str, cores: int, bucket: str | None) -> Start:
    """The stored images as a materialized dataset, augmented in `map_batches`, as Ray's guides recommend; blocks are
    shuffled, their rows are not."""
    import ray.data

    ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    os.mkdir(f"{folder}/numpy")
    for number, part in enumerate(np.array_split(images, max(1, len(images) // 256))):
        np.save(f"{folder}/numpy/{number:05d}.npy", part)
    source = publish(f"{folder}/numpy", bucket)

    def augment(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"image": random_warps(batch["data"])}

    def start() -> Epoch:
        dataset = ray.data.read_numpy(source).materialize()

        def epoch() -> Iterator[Any]:
            shuffled = dataset.randomize_block_order().map_batches(augment, batch_size=BATCH)
            return iter(shuffled.iter_torch_batches(batch_size=BATCH, prefetch_batches=2))

        return epoch

    return start


LOADERS: dict[str, Callable[..., Start]] = {
    "DataLoader": torch_loader,
    "MosaicML": mosaicml,
    "LitData": litdata,
    "Ray": ray_data,
    "FFCV": ffcv,
    "tf.data": tf_data,
    "tf.data-warp": partial(tf_data, own_warp=True),
}
PACKAGES = {
    "DataLoader": "torch",
    "MosaicML": "streaming",
    "LitData": "litdata",
    "Ray": "ray",
    "FFCV": "ffcv",
    "tf.data": "tensorflow",
    "tf.data-warp": "tensorflow",
}
FROM_BUCKET = ("MosaicML", "LitData", "Ray")


def cpu_seconds() -> float:
    """CPU seconds of this process and of all that it and they have started, so far."""
    parents, ticks = {}, {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents[int(name)] = int(fields[1])
        ticks[int(name)] = sum(map(int, fields[11:15]))  # its own and those of its ended children, user and system
    total = 0
    for process in parents:
        ancestor = process
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor]
        total += ticks[process] if ancestor == os.getpid() else 0
    return total / os.sysconf("SC_CLK_TCK")


def size(batch: Any) -> int:
    return len(batch["image"] if isinstance(batch, dict) else batch)


def main() -> None:
    name, file, settle, epochs, cores = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    try:
        __import__(PACKAGES[name])
    except ImportError:
        sys.exit(NOT_INSTALLED)
    images = np.load(file)
    with tempfile.TemporaryDirectory() as folder:
        start = LOADERS[name](images, folder, cores, sys.argv[6] if len(sys.argv) > 6 else None)
        started, first_epoch, timed_from, cpu_from, rows = time.perf_counter(), 0.0, 0.0, 0.0, 0
        epoch = start()
        for number in range(settle + epochs):
            if number == settle:
                timed_from, cpu_from = time.perf_counter(), cpu_seconds()
            for batch in epoch():
                rows += size(batch)
            first_epoch = first_epoch or time.perf_counter() - started
        seconds, cpu_s = time.perf_counter() - timed_from, cpu_seconds() - cpu_from
    count = epochs * len(images)
    measured = {"images_per_s": count / seconds, "images_per_cpu_s": count / cpu_s, "first_epoch_s": first_epoch}
    print(json.dumps({**measured, "rows": rows}), flush=True)
    os._exit(0)  # worker processes of a library may hang at exit


if __name__ == "__main__":
    main()
