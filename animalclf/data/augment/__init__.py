"""Augmentation of uint8 batches: registered operations, composed per image, applied by OpenCV or PyTorch.

A view of an image is a pure function of (seed, epoch, manifest row): the same in any batch, on any worker, in either
form.

- `operation.py`: the parts of an operation, and the registry `OPERATIONS`.
- `operations/`: one operation per file. A new file is a new operation.
- `compose.py`: all active operations as one warp, one colour map and the remaining filters.
- `numpy_form.py` and `torch_form.py`: apply a composed view to a batch. `torch_form` is not imported here, because
  input tasks run without PyTorch.
"""

from animalclf.data.augment.compose import compose, is_identity
from animalclf.data.augment.numpy_form import augment_batch, evaluation_view
from animalclf.data.augment.operation import OPERATIONS, Operation, Samples

__all__ = ["OPERATIONS", "Operation", "Samples", "augment_batch", "compose", "evaluation_view", "is_identity"]
