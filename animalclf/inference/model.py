"""A run's best model in this process: class names, probabilities and features of images, without Ray."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from animalclf.data import decode
from animalclf.data.augment import evaluation_view
from animalclf.data.resize import shrink, stored_image
from animalclf.errors import UserError
from animalclf.inference.explanation import SIDE, Explanation, normalized
from animalclf.inference.extra_columns import ExtraColumns, TableOptions
from animalclf.inference.heat_maps import FeatureLayer, feature_layer, forward_pass, heat_map
from animalclf.inference.images import decoded_image
from animalclf.inference.probabilities import batch_outputs, uses_bf16
from animalclf.inference.views import UNDONE, VIEWS, check_views
from animalclf.predictions import OK, predictions_table
from animalclf.rows import html_table
from animalclf.runs import Run, open_run
from animalclf.training import checkpoint
from animalclf.training.outputs import Outputs, Summary, features_only
from animalclf.utils import storage
from animalclf.utils.canvas import sides_on_canvas
from animalclf.utils.registry import nearest

if TYPE_CHECKING:
    from animalclf.config import Config
    from animalclf.data.loader import Batch

    OneImage = str | os.PathLike[str] | np.ndarray | Image.Image
    Images = OneImage | Sequence[OneImage]

BATCH_SIZE = 64  # images in memory at a time
ARRAY_FORMAT = "uint8 (H, W, 3) or (N, H, W, 3), RGB"


class Model:
    """The best epoch of a run, ready to classify images.

    Every method takes one image or many: a path, an s3:// URL, a NumPy array uint8 (H, W, 3) RGB, a PIL image, a
    list of these, or a batch uint8 (N, H, W, 3). They are decoded, resized and scaled exactly as by
    `animalclf.predict`, which reduces a JPEG file of 1,152 px or more (its shorter side) while it decodes it: an array
    or a PIL image of such a photograph has slightly other probabilities than its path. The result has one row per
    image, even for a single image. An unreadable file raises UserError with its name.
    """

    def __init__(self, run: str | os.PathLike[str], device: str | torch.device = "auto") -> None:
        """Load the best checkpoint of the run folder `run`. `device`: auto, cpu, cuda, cuda:N or a torch.device. Raises
        UserError if there is no run or no checkpoint."""
        self.device = _device(device)
        self.run = open_run(os.fspath(run)).root
        self._classifier, self._info = checkpoint.load_model(self.run, self.device)
        self.classes, self.config = self._info.classes, self._info.config

    def __repr__(self) -> str:
        return f"Model({self.run!r}: {self.config.name}, {len(self.classes)} classes, {self.device})"

    def _repr_html_(self) -> str:
        """For notebooks: run, recipe, device and classes."""
        lines = (("recipe", self.config.name), ("device", self.device), ("classes", ", ".join(self.classes)))
        return html_table(("", self.run), lines)

    def predict(self, images: Images) -> list[str]:
        """The most probable class of each image."""
        return [self.classes[number] for number in self.predict_proba(images).argmax(1)]

    def predict_proba(self, images: Images) -> np.ndarray:
        """Class probabilities float32 (N, C), in the order of `classes`."""
        return self._outputs(images).probabilities

    def features(self, images: Images) -> np.ndarray:
        """Features float32 (N, F) of each image: what the last dense layer, or the fitted heads, of the model take."""
        summaries = self._outputs(images, features_only).summaries
        if summaries is None:  # F is known from an image
            side = self.config.view_size
            return self.features(np.zeros((side, side, 3), np.uint8))[:0]
        return summaries

    def table(self, images: Images, *, top_k: int = 1, sets: float = 0.0) -> pd.DataFrame:
        """A row per image as in the table of `animalclf.predict`: predicted, probability, p_<class>, and, if the run
        has the score, `known` (yes or no) and `known_score`. `top_k`: columns for this many most probable classes.
        `sets`: a coverage such as 0.9 adds the column `set`, the classes that an image may be."""
        columns = TableOptions(top_k=top_k, sets=sets)
        extra = ExtraColumns(columns, Run(self.run), self._classifier, self._info)
        listed = list(_as_iterable(images))
        _, probabilities, scores = self._outputs(listed, extra.summary)
        names = [
            os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {number}"
            for number, image in enumerate(listed)
        ]
        table = predictions_table(names, self.classes, probabilities, [OK] * len(names))
        return extra.add(table, np.asarray(self._info.prior), scores)

    def _outputs(self, images: Images, summary: Summary | None = None) -> Outputs:
        """Probabilities, and the summary of the features, in the order of the images."""
        bf16 = uses_bf16(self.config, self.device)
        return batch_outputs(self._classifier, self._batches(images), self.device, bf16, summary=summary)

    def embed(self, images: Images) -> np.ndarray:
        """Features float32 (N, F) of each image: the flattened output of the model's base."""
        features = [self._features(batch["image"]) for batch in self._batches(images)]
        if not features:  # F is known from an image
            side = self.config.view_size
            features = [self._features(np.zeros((1, side, side, 3), np.uint8))[:0]]
        return np.concatenate(features)

    def explain(self, images: Images, class_name: str | None = None, views: str = "none") -> list[Explanation]:
        """Each image with its probability of a class and a heat map of what speaks for it (see heat_maps.py).
        `class_name`: the class (default: the predicted one of each image). `views`: "none", "flip" or "multi", over
        which probabilities and maps are averaged. Raises UserError for an unknown class, and a network without maps."""
        check_views(views)
        if views == "multi" and self.config.keeps_shape:
            raise UserError("views: heat maps of multi are of squares, and this model keeps shapes; use flip")
        if class_name is not None and class_name not in self.classes:
            near = nearest(class_name, self.classes)
            raise UserError(f"{class_name!r} is no class of this model{near}: {', '.join(self.classes)}")
        layer = self._layer
        pixels = (_pixels(image, number, self.config) for number, image in enumerate(_as_iterable(images)))
        return [self._explanation(image, layer, class_name, views) for image in pixels]

    def _explanation(self, image: np.ndarray, layer: FeatureLayer, class_name: str | None, views: str) -> Explanation:
        """Of pixels uint8 (H, W, 3)."""
        (batch,) = self._batches(image)
        bf16 = uses_bf16(self.config, self.device)
        pixels = [torch.from_numpy(view(batch["image"])).to(self.device) for view in VIEWS[views]]
        passes = [forward_pass(self._classifier, layer, each, bf16) for each in pixels]
        logits = torch.cat([each.logits.detach() for each in passes])
        probabilities = logits.float().softmax(1).mean(0).cpu().numpy()
        best = int(probabilities.argmax())
        number = best if class_name is None else self.classes.index(class_name)
        evidence = np.zeros((self.config.view_size,) * 2, np.float32)
        for forward, undone in zip(passes, UNDONE[views], strict=True):
            evidence += undone(heat_map(self._classifier, forward, number)[None])[0]
        if self.config.keeps_shape:
            height, width = sides_on_canvas(image.shape[0], image.shape[1], self.config.data.stored_size)
            evidence = evidence[:height, :width]
        shown = shrink(image, SIDE)
        return Explanation(
            class_name=self.classes[number],
            probability=float(probabilities[number]),
            predicted=self.classes[best],
            image=shown,
            heat_map=normalized(evidence, shown.shape[0], shown.shape[1]),
        )

    @cached_property
    def _layer(self) -> FeatureLayer:
        try:
            return feature_layer(self._classifier, self.config.view_size)
        except UserError as error:
            raise UserError(f"model.name: {self.config.model.name} {error}") from error

    def _features(self, views: np.ndarray) -> np.ndarray:
        """Features float32 (B, F) of views uint8 (B, view_size, view_size, 3)."""
        bf16 = uses_bf16(self.config, self.device)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            maps = self._classifier.features(torch.from_numpy(views).to(self.device))
        features: np.ndarray = maps.float().flatten(1).cpu().numpy()
        return features

    def _batches(self, images: Images) -> Iterator[Batch]:
        """Batches with "image" uint8 (B, view_size, view_size, 3); "label" is a placeholder."""
        numbered = enumerate(_as_iterable(images))
        while batch := list(islice(numbered, BATCH_SIZE)):
            index = np.array([number for number, _ in batch], np.int64)
            stored = np.stack([self._stored_image(image, number) for number, image in batch])
            yield {"image": evaluation_view(stored, self.config.view_size), "label": index, "index": index}

    def _stored_image(self, image: Any, number: int) -> np.ndarray:
        data = self.config.data
        return stored_image(_pixels(image, number, self.config), data.stored_size, data.resize)


def _device(name: str | torch.device) -> torch.device:
    """The device `name`: auto, cpu, cuda or cuda:N. Raises UserError for others, and for a GPU that does not exist."""
    name = str(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"device: {name!r} is not one of auto, cpu, cuda, cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: {name}, but PyTorch sees {torch.cuda.device_count()} GPUs here; use cpu or auto")
    return device


def _as_iterable(images: Any) -> Iterable[Any]:
    """The images as an iterable. Raises UserError for other types and for arrays of another shape."""
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if isinstance(images, np.ndarray):
        if images.ndim == 2 or images.ndim > 4 or not images.ndim:
            raise UserError(f"images: an array of {images.dtype} {images.shape}; give {ARRAY_FORMAT}")
        return [images] if images.ndim == 3 else images
    if hasattr(images, "columns"):  # its elements are the names of its columns
        raise UserError(f"images: {type(images).__name__} is a table; give one column of paths, such as table['path']")
    if not isinstance(images, Iterable) or isinstance(images, Mapping | bytes) or hasattr(images, "read"):
        raise UserError(f"images: {type(images).__name__} is not a path, URL, array or PIL image, nor a list of these")
    return list(images)


def _pixels(image: Any, number: int, config: Config) -> np.ndarray:
    """The pixels uint8 (H, W, 3) of image `number`; a large file's are reduced. Raises UserError naming an
    unreadable one."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UserError(f"image {number}: an array of {image.dtype} {image.shape}; give {ARRAY_FORMAT}")
        return image
    name = f"image {number}"
    try:
        if isinstance(image, Image.Image):
            return decode.from_pil(image)
        name = os.fspath(image) or name
        content = storage.read_bytes(storage.absolute(name))
        return decoded_image(content, name, config.data)
    except TypeError as error:
        raise UserError(
            f"image {number}: {type(image).__name__} is not a path, URL, uint8 array or PIL image"
        ) from error
    except (OSError, ValueError, decode.UnreadableImage) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(f"{name}: cannot be read: {reason}") from error
