"""Class probabilities of image files, with onnxruntime, NumPy and Pillow only: python predict_onnx.py IMAGE ..."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

FOLDER = Path(__file__).parent


def pixels(file: str) -> np.ndarray:
    """uint8 (height, width, 3), RGB: upright by EXIF, transparency on white. The model resizes and scales them."""
    image: Image.Image = ImageOps.exif_transpose(Image.open(file))
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.asarray(image.convert("RGB"))


def probabilities(files: list[str], model: str = "model.onnx") -> np.ndarray:
    """float32 (N, classes). The images of one call of the model must have one size, so each has its own call here."""
    session = onnxruntime.InferenceSession(FOLDER / model, providers=onnxruntime.get_available_providers())
    return np.concatenate([session.run(["probabilities"], {"images": pixels(file)[None]})[0] for file in files])


if __name__ == "__main__":
    labels = json.loads((FOLDER / "labels.json").read_text())
    for file, row in zip(sys.argv[1:], probabilities(sys.argv[1:]), strict=True):
        print(file, labels[row.argmax()], f"{row.max():.4f}", sep="\t")
