"""Class probabilities of image files, with onnxruntime, NumPy and Pillow only: python predict_onnx.py IMAGE ..."""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

FOLDER = Path(__file__).parent
TURNS = {  # by the orientation in EXIF data
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_model(name: str = "model.onnx") -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(FOLDER / name, providers=onnxruntime.get_available_providers())


def probabilities(file: str, model: onnxruntime.InferenceSession) -> np.ndarray:
    """float32 (classes,). Large JPEG images are reduced, all are upright by EXIF, with transparency on white (of an
    image that is transparent everywhere, as if it were not)."""
    image: Image.Image = Image.open(file)
    min_side = int(model.get_modelmeta().custom_metadata_map["min_side"])
    if draft := image.draft(None, (min_side, min_side)):  # of a JPEG image only
        image = whole_pixels(image, *draft[1][2:])
    image = upright(image)
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(white, layer) if layer.getchannel("A").getextrema()[1] else layer
    return model.run(["probabilities"], {"images": np.asarray(image.convert("RGB"))[None]})[0][0]


def upright(image: Image.Image) -> Image.Image:
    """Turned by its EXIF orientation; without one, or with damaged EXIF data, as it is."""
    image.load()  # which turns a TIFF image
    orientation = None
    if "exif" in image.info or image.format not in (None, "JPEG", "MPO"):  # of these, XMP data do not count
        with contextlib.suppress(Exception):
            orientation = image.getexif().get(0x0112)
    return image.transpose(TURNS[orientation]) if isinstance(orientation, int) and orientation in TURNS else image


def whole_pixels(image: Image.Image, width: float, height: float) -> Image.Image:
    """An image of which only `width` x `height` pixels are covered, without the partly covered ones."""
    if not (width % 1 or height % 1):
        return image
    pixels, info = np.asarray(image.convert("RGB"), np.float32), image.info
    for covered in (height, width):  # the rows, then the columns
        count = int(covered) - (covered % 1 > 0)
        place = ((np.arange(count) + 0.5) * covered / count - 0.5)[:, None, None]
        first, rows = np.floor(place), np.zeros((), np.float32)
        for position in (first - 1, first, first + 1, first + 2):  # cubic, as by OpenCV
            d = np.abs(place - position).astype(np.float32)
            weight = np.where(d < 1, (1.25 * d - 2.25) * d * d + 1, 0.75 * (1 - d) * (2 - d) ** 2)
            rows = rows + weight * pixels[position.astype(int).clip(0, len(pixels) - 1)[:, 0, 0]]
        pixels = rows.swapaxes(0, 1)
    image = Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
    image.info = info  # its orientation
    return image


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
