"""Class probabilities of image files, with onnxruntime, NumPy and Pillow only: python predict_onnx.py IMAGE ..."""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

FOLDER = Path(__file__).parent


def open_model(name: str = "model.onnx") -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(FOLDER / name, providers=onnxruntime.get_available_providers())


def pixels_of(file: str, min_side: int) -> np.ndarray:
    """uint8 (height, width, 3), RGB, upright, transparency on white; of a large JPEG image a half, quarter or eighth of
    its sides, at least `min_side`."""
    image: Image.Image = Image.open(file)
    draft, orientation = image.draft(None, (min_side, min_side)), 1
    image.load()  # which turns a TIFF image
    if "exif" in image.info or image.format not in ("JPEG", "MPO"):  # of these, XMP data do not count
        with contextlib.suppress(Exception):  # of damaged EXIF data
            tag = image.getexif().get(0x0112)
            orientation = tag if isinstance(tag, int) else 1
    if image.mode[0] in "IF":  # 16 bits a channel, or the bits that it uses
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError("32 bits a channel; save it with 8 or 16")
        bits = 16 if values.max() >= 2**12 else max(8, int(values.max()).bit_length())
        image = Image.fromarray((values.astype(np.uint32) * 255 // (2**bits - 1)).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(white, layer) if layer.getchannel("A").getextrema()[1] else layer
    pixels = np.asarray(image.convert("RGB"))
    if draft and any(side % 1 for side in draft[1]):  # the last pixels are covered in part
        pixels = whole_pixels(pixels, draft[1][:1:-1])
    pixels = pixels.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else pixels
    pixels = pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels


def whole_pixels(pixels: np.ndarray, covered: tuple[float, float]) -> np.ndarray:
    """The `covered` rows and columns as whole pixels: cubic, as by OpenCV."""
    for side in covered:
        padded, count = np.pad(pixels, ((2, 2), (0, 0), (0, 0)), "edge"), int(side) - (side % 1 > 0)
        d = np.abs(((np.arange(count) + 0.5) * side / count + 1.5)[:, None] - np.arange(len(padded)))
        weights = np.where(d < 1, (1.25 * d - 2.25) * d * d + 1, np.where(d < 2, 0.75 * (1 - d) * (2 - d) ** 2, 0))
        pixels = np.tensordot(weights.astype(np.float32), padded, 1).swapaxes(0, 1)
    return pixels.round().clip(0, 255).astype(np.uint8)


def probabilities(file: str, model: onnxruntime.InferenceSession) -> np.ndarray:
    """float32 (classes,)."""
    min_side = int(model.get_modelmeta().custom_metadata_map["min_side"])
    return model.run(["probabilities"], {"images": pixels_of(file, min_side)[None]})[0][0]


if __name__ == "__main__":
    if not sys.argv[1:]:
        print("usage: python predict_onnx.py IMAGE ...", file=sys.stderr)
        sys.exit(2)
    code, model, labels = 0, open_model(), json.loads((FOLDER / "labels.json").read_text("utf-8"))
    for file in sys.argv[1:]:
        try:
            row = probabilities(file, model)
            print(file, labels[row.argmax()], f"{row.max():.4f}", sep="\t")
        except Exception as error:  # noqa: BLE001 - Pillow raises errors of many types
            print(f"unreadable: {file}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
            code = 3
    sys.exit(code)
