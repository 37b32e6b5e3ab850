"""Small files of every format that data/decode.py reads: all that Pillow and OpenCV write in every mode that the format
takes, and some that Pillow only reads, written here."""

from __future__ import annotations

import functools
import io
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from animalclf.data import decode, formats

WIDTH, HEIGHT = 24, 20
MAX_BYTES = 50_000  # ICNS repeats an image in large sizes
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "I;16", "I", "F")
IM_KINDS = {
    "RGB": "RGB", "RGBA": "RGBA", "L": "Greyscale", "LA": "LA", "CMYK": "CMYK", "YCbCr": "YCC",
    "I;16": "L 16", "I": "L 32S", "F": "L 32F",
}  # fmt: skip
OPTIONS: dict[str, list[dict[str, object]]] = {
    "JPEG": [{"progressive": True}, {"quality": 30, "restart_marker_blocks": 1}, {"subsampling": 0}, {"exif": b"EXIF"}],
    "PNG": [{"compress_level": 0}, {"exif": b"EXIF"}, {"transparency": 3}, {"save_all": True}],
    "WEBP": [{"lossless": True}, {"exif": b"EXIF"}, {"save_all": True}],
    "GIF": [{"interlace": False}, {"transparency": 3}, {"save_all": True}],
    "TIFF": [
        *({"compression": kind} for kind in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4")),
        {"big_tiff": True},
        {"save_all": True},
    ],
    "AVIF": [{"quality": 30}, {"save_all": True}],
    "TGA": [{"compression": "tga_rle"}],
    "SGI": [{"rle": True}],
    "JPEG2000": [{"irreversible": True}, {"quality_layers": [20]}],
    "ICO": [{"bitmap_format": "bmp"}],
}


@dataclass(frozen=True, eq=False)
class Sample:
    """A whole file, its pixels uint8 (H, W, 3), and a name that states format, mode and options."""

    name: str
    data: bytes
    pixels: np.ndarray


@functools.cache
def images() -> list[Sample]:
    """One sample for each format, mode and option that can be written and that `decode` reads."""
    files = {**_by_pillow(), **_by_opencv(), **_by_hand()}
    samples: dict[bytes, Sample] = {}
    for name, data in files.items():
        try:
            pixels = decode.decode(data).image
        except decode.UnreadableImage:
            continue
        samples.setdefault(data, Sample(name, data, pixels))
    return [sample for sample in samples.values() if len(sample.data) <= MAX_BYTES]


def _drawing() -> Image.Image:
    small = np.random.default_rng(3).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def _in_mode(mode: str) -> Image.Image:
    image = _drawing()
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode in ("RGBA", "LA"):
        alpha = Image.fromarray(np.linspace(0, 255, WIDTH * HEIGHT).astype(np.uint8).reshape(HEIGHT, WIDTH))
        image.putalpha(alpha)
    return image.convert(mode)


def _by_pillow() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {}
    for kind in sorted((set(formats.pillow_formats()) & set(Image.SAVE)) - {"IM"}):  # its writer is deprecated
        for mode in MODES:
            for options in [{}, *OPTIONS.get(kind, [])]:
                values = {key: exif.tobytes() if value == b"EXIF" else value for key, value in options.items()}
                if values.get("save_all"):
                    values["append_images"] = [_in_mode(mode).transpose(Image.Transpose.FLIP_TOP_BOTTOM)]
                sink = io.BytesIO()
                try:
                    _in_mode(mode).save(sink, kind, **values)
                except Exception:  # noqa: BLE001 - writers raise anything for modes that they do not take
                    continue
                files[f"{kind} {mode} {_described(options)}".strip()] = _without_times(sink.getvalue())
    return files


def _without_times(data: bytes) -> bytes:
    """An AVIF animation says when it was made; without that, an input of the fuzzer depends on its seed alone."""
    for box in (b"mvhd", b"tkhd", b"mdhd") if data[4:8] == b"ftyp" else ():
        for match in re.finditer(box, data):
            start = match.end() + 4  # after the version and the flags
            size = 16 if data[match.end()] == 1 else 8  # creation and modification
            data = data[:start] + bytes(size) + data[start + size :]
    return data


def _described(options: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items() if value != b"EXIF") or "".join(options)


def _by_opencv() -> dict[str, bytes]:
    """Variants that Pillow does not write: 16-bit colour PNG, 16-bit and float TIFF of three channels."""
    eight = np.asarray(_drawing())[:, :, ::-1]
    arrays = {"16 bits": eight.astype(np.uint16) * 257, "12 bits": eight.astype(np.uint16) * 16}
    files = {}
    for name, array in arrays.items():
        for suffix in (".png", ".tiff"):
            files[f"{suffix[1:].upper()} colour, {name}"] = cv2.imencode(suffix, array)[1].tobytes()
    files["TIFF colour, float"] = cv2.imencode(".tiff", eight.astype(np.float32) / 255)[1].tobytes()
    files["PNG grey, 16 bits"] = cv2.imencode(".png", arrays["16 bits"][:, :, 0])[1].tobytes()
    return files


def _by_hand() -> dict[str, bytes]:
    grey = np.asarray(_drawing().convert("L"))
    rgb = np.asarray(_drawing())
    rows = [f'"{"".join("ab"[int(value > 127)] for value in line)}"' for line in grey]
    xpm = ['"24 20 2 1"', '"a c #102030"', '"b c #f0e0d0"', *rows]
    fits = "".join(
        f"{key:8}= {value:>20}".ljust(80)
        for key, value in {"SIMPLE": "T", "BITPIX": 8, "NAXIS": 2, "NAXIS1": WIDTH, "NAXIS2": HEIGHT}.items()
    )
    psd = b"8BPS" + struct.pack(">H6xHIIHHIII", 1, 3, HEIGHT, WIDTH, 8, 3, 0, 0, 0)
    return {
        "SUN": struct.pack(">8I", 0x59A66A95, WIDTH, HEIGHT, 24, rgb.size, 1, 0, 0) + rgb.tobytes(),
        "XPM": ("/* XPM */\nstatic char *x[] = {\n" + ",\n".join(xpm) + "\n};\n").encode(),
        "FITS": (fits + "END".ljust(80)).ljust(2880).encode() + grey.tobytes().ljust(2880, b"\0"),
        "PSD": psd + b"\0\0" + rgb.transpose(2, 0, 1).tobytes(),
        "BMP RLE8": _bmp_rle8(grey),
        **{f"IM {mode}": _im(mode, kind) for mode, kind in IM_KINDS.items()},
    }


def _im(mode: str, kind: str) -> bytes:
    """Rows from the bottom to the top, each with one line for each channel."""
    lines = [f"Image type: {kind} image", f"Image size (x*y): {WIDTH}*{HEIGHT}", "File size (no of images): 1", ""]
    rows = np.atleast_3d(np.asarray(_in_mode(mode)))[::-1].transpose(0, 2, 1)
    return "\r\n".join(lines).encode().ljust(511, b"\0") + b"\x1a" + rows.tobytes()


def _bmp_rle8(grey: np.ndarray) -> bytes:
    lines = [b"".join(bytes([1, value]) for value in line) + b"\0\0" for line in grey[::-1].tolist()]
    pixels, palette = b"".join(lines) + b"\0\1", b"".join(bytes([value, value, value, 0]) for value in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    offset = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + info + palette + pixels
