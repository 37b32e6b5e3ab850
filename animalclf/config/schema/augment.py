"""The keys of `augment.*`: random changes to training images."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from animalclf.config.values import STRICT, Factors, Flag, Fractions, Integer, Number
from animalclf.errors import UserError


@dataclass(frozen=True, config=STRICT)
class Augment:
    """Random changes to training images; validation is never augmented. The default is the affine warp (rotation,
    shift, zoom, flip) of the reference notebook. The changes to an image depend on the random seed, the epoch and the
    image alone, not on the number of workers."""

    rotation: Annotated[Number, Field(ge=0, le=180)] = 25.0
    """Largest rotation in degrees; the angle is uniform between minus and plus this."""

    shift: Annotated[Number, Field(ge=0, lt=1)] = 0.2
    """Largest shift in x and in y, as a fraction of the side; uniform between minus and plus this."""

    zoom: Factors = (0.6, 1.4)
    """Smallest and largest zoom factor, drawn separately for x and y. As in Keras the factor stretches the sampling
    grid: below 1 zooms in, above 1 zooms out. [1, 1] does not zoom."""

    flip: Flag = True
    """Mirror half of the images, left to right. Turn it off if left and right mean something, as in text."""

    crop: Fractions = (1.0, 1.0)
    """Smallest and largest area of a random resized crop, as a fraction of the image; aspect ratio 3:4 to 4:3. [1, 1]
    does not crop."""

    brightness: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Strength of the brightness jitter: pixels are multiplied by a factor that is uniform in 1 plus or minus this. 0
    changes nothing."""

    contrast: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Strength of the contrast jitter, about mid-grey: the factor is uniform in 1 plus or minus this. 0 changes
    nothing."""

    saturation: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Strength of the saturation jitter: the factor is uniform in 1 plus or minus this. 0 changes nothing."""

    trivial: Flag = False
    """Apply TrivialAugment: one random operation of random strength to each image. Needs no tuning; set the others to 0
    with it."""

    erase: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Fraction of the images in which a random rectangle is painted grey (random erasing). 0 erases nothing."""

    blur: Annotated[Number, Field(ge=0, le=10)] = 0.0
    """Largest standard deviation of a Gaussian blur, in pixels of the model's input; uniform between 0 and this. 0
    does not blur."""

    mixup: Annotated[Number, Field(ge=0)] = 0.0
    """Alpha of mixup, which blends pairs of images and of labels on the training device; 0.2 is usual. 0 turns it
    off."""

    cutmix: Annotated[Number, Field(ge=0)] = 0.0
    """Alpha of CutMix, which pastes a rectangle of one image into another; 1.0 is usual. With mixup too, each step uses
    one of them at random. 0 turns it off."""

    mix_fraction: Annotated[Number, Field(ge=0, le=1)] = 1.0
    """Fraction of the steps that mix their images, with mixup or CutMix; the others train on the images as they are."""

    mix_off_epochs: Annotated[Integer, Field(ge=0)] = 0
    """Number of epochs at the end of the training without mixup and CutMix, so that the model ends on unmixed images.
    About a tenth of the epochs is usual."""

    on: Literal["auto", "data", "device"] = "auto"
    """Where warps and colours are computed. data: in Ray Data tasks on CPUs. device: on the training device. auto: on a
    GPU if there is one. Choose device when training waits for data."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, (low, high) in (("zoom", self.zoom), ("crop", self.crop)):
            if low > high:
                raise UserError(f"augment.{name}: two numbers, the smaller first, not {[low, high]}")
        return self
