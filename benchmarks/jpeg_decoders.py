"""CPU time of JPEG decoders at full size and reduced while they decode, for photographs of 12 megapixels.

    python -m benchmarks.jpeg_decoders --data photos/

The photographs are those of benchmarks/photographs.py (4:2:0). The least of --repeat times of each image counts.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torchvision.io import decode_jpeg

from benchmarks.common import argument_parser, write_json
from benchmarks.photographs import write_photographs

KIND, HEIGHT, WIDTH = "4:2:0", 3000, 4000
CV2_FLAGS = {1: cv2.IMREAD_COLOR, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
Decoder = Callable[[bytes, int], object]


def simplejpeg_decoder(content: bytes, scale: int) -> object:
    return simplejpeg.decode_jpeg(content, min_height=HEIGHT // scale, min_width=WIDTH // scale, min_factor=1)


def opencv(content: bytes, scale: int) -> object:
    return cv2.imdecode(np.frombuffer(content, np.uint8), CV2_FLAGS[scale])


def pillow(content: bytes, scale: int) -> object:
    image = Image.open(io.BytesIO(content))
    image.draft("RGB", (WIDTH // scale, HEIGHT // scale))
    return image.load()


def torchvision(content: bytes, scale: int) -> object:
    if scale != 1:
        raise NotImplementedError  # it has no reduction
    return decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8))


DECODERS: dict[str, Decoder] = {
    "simplejpeg": simplejpeg_decoder,
    "OpenCV": opencv,
    "Pillow": pillow,
    "torchvision": torchvision,
}
SCALES = (1, 4, 8)


def milliseconds(decoder: Decoder, contents: list[bytes], scale: int, repeat: int) -> float | None:
    """The mean over images of the least CPU time; None for a reduction that the decoder does not have."""
    least = []
    for content in contents:
        times = []
        for _ in range(repeat):
            started = time.process_time()
            try:
                decoder(content, scale)
            except NotImplementedError:
                return None
            times.append(1000 * (time.process_time() - started))
        least.append(min(times))
    return sum(least) / len(least)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", metavar="FOLDER", help="photographs of any size")
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=8)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(folder, [KIND], arguments.images, arguments.data)
        contents = [path.read_bytes() for path in sorted(Path(folder, KIND).iterdir())]
    results = {
        name: {scale: milliseconds(decoder, contents, scale, arguments.repeat) for scale in SCALES}
        for name, decoder in DECODERS.items()
    }
    table = Table("", *("full size" if scale == 1 else f"1/{scale}" for scale in SCALES), title="CPU ms an image")
    for name, times in results.items():
        table.add_row(name, *("" if value is None else f"{value:.1f}" for value in times.values()))
    Console().print(table)
    write_json(arguments.json, results)


if __name__ == "__main__":
    main()
