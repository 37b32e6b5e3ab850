"""The keys of `data.*`: how the images are read, split and stored."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from animalclf.config.values import STRICT, Flag, Integer, Number, Seed, Text
from animalclf.errors import UserError


@dataclass(frozen=True, config=STRICT)
class Data:
    """How `prepare` reads, splits and stores the images. Every key here is part of the prepared set's fingerprint."""

    stored_size: Annotated[Integer, Field(ge=1)] = 144
    """Side in pixels of the square images in the prepared set. At least model.input_size; a little more (144 for 128)
    keeps detail for zooming in, at the price of disk, memory and reading time, which grow with its square."""

    resize: Literal["squash", "keep"] = "squash"
    """How images get their stored size. squash: stretched to the square. keep: with their shape, scaled up or down
    until the longer side is data.stored_size or the shorter is three quarters of it, padded to a square; a frozen base
    without augmentation then computes on each image's own shape, which pretrained networks recognise better."""

    store: Literal["pixels", "jpeg"] = "pixels"
    """How images are stored. pixels: decoded uint8, the fastest to load. jpeg: quality 95, a fifth of the disk or less,
    and decoded when training starts; choose it when the prepared set is too large for the disk or the bucket."""

    val: Annotated[Number, Field(ge=0, lt=1)] = 0.2
    """Fraction of each class for the validation split. 0 trains without validation. Not used with data.folds, or if
    a table names the validation images."""

    test: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Fraction of each class for a test split, which is evaluated once, after training. 0 makes none."""

    folds: Annotated[Integer, Field(ge=0)] = 0
    """Number of folds of the split, at least 2; replaces data.val: the set of each data.fold is prepared and trained on
    its own. 0 splits by data.val. train.folds cross-validates in one training instead."""

    fold: Annotated[Integer, Field(ge=0)] = 0
    """Which of the data.folds is the validation split, counted from 0."""

    small_classes: Literal["refuse", "train"] = "refuse"
    """What happens to a class with too few different images for every split or fold, such as a single one. refuse: an
    error names it. train: all its images train, and its accuracy is not measured."""

    split_seed: Seed = 0
    """Random seed of the split, independent of `seed`: runs with different seeds are validated on the same images."""

    near_duplicates: Flag = True
    """Look for near-duplicates (recompressed, resized, cropped, darkened, mirrored, rotated or framed images, prints)
    besides identical files. Candidates are read a second time. Duplicates always stay in the same split. False saves
    time on large sets that are known to have none."""

    max_unreadable: Annotated[Number, Field(ge=0, le=1)] = 0.05
    """Largest fraction of unreadable files. `prepare` refuses a set with more, which usually means a broken
    download."""

    max_pixels: Annotated[Integer, Field(gt=0)] = 100_000_000
    """Images with more pixels than this (width x height) are skipped as decompression bombs, which would exhaust
    memory."""

    limit: Annotated[Integer, Field(ge=0)] = 0
    """Use only this many images, spread over the classes: for a smoke run (the flag --limit sets it). 0 uses all.
    Their split is another one, so a limited run cannot be compared with a full one."""

    splits: Literal["auto", "none", "ignore"] = "auto"
    """Meaning of folders with the name of a split (train, Test, val_images, seg_train, ...). auto: they are the splits
    of the images in them. none: they are classes, like all other folders. ignore: as auto, but all labelled images
    are split anew by data.val and data.test; so are those of a table with splits."""

    given_split_duplicates: Literal["keep", "drop"] = "keep"
    """Training images that are duplicates of validation or test images, if the data gives the splits. keep: they
    train, and the scores may be too high. drop: they are in no split."""

    path_column: Text = "path"
    """Column with the image paths, if the data is a CSV, TSV or Parquet table. Relative paths start at the table's
    folder."""

    label_column: Text = "label"
    """Column with the class names, if the data is a table."""

    split_column: Text = "split"
    """Column with the splits (train, val, test or empty), if the data is a table. Without such a column the set is
    split by data.val and data.test."""

    corrections: Text = ""
    """CSV file of corrected labels, which `animalclf labels` writes and a person fills in (the flag --corrections sets
    it): images get other labels or are dropped; their files are not changed. Empty for none."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.val + self.test >= 1:
            raise UserError(
                "data.val: the validation and test fractions must leave images to train on; lower data.val or data.test"
            )
        if self.folds == 1:
            raise UserError("data.folds: 0 for none, or at least 2")
        if self.fold >= max(self.folds, 1):
            raise UserError(f"data.fold: a number from 0 to data.folds - 1 = {max(self.folds, 1) - 1}, not {self.fold}")
        return self
