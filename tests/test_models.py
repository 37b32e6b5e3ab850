"""Models against the seed's tables, freezing, weights, any number of classes."""

import pytest
import torch

from animalclf import config as configuration
from animalclf.config import Model
from animalclf.errors import UserError
from animalclf.models import build, names
from animalclf.models.classifier import count, layer_names, layer_table

# The seed's two tables, row by row: layer, output shape without the batch axis, parameters.
BIG_CNN = """
InputLayer 128,128,3 0
Conv2D 126,126,32 896
Conv2D_1 124,124,64 18496
BatchNormalization 124,124,64 256
MaxPooling2D 62,62,64 0
Conv2D_2 60,60,128 73856
Conv2D_3 58,58,256 295168
BatchNormalization_1 58,58,256 1024
MaxPooling2D_1 29,29,256 0
Conv2D_4 27,27,256 590080
Conv2D_5 25,25,512 1180160
BatchNormalization_2 25,25,512 2048
MaxPooling2D_2 12,12,512 0
Conv2D_6 10,10,512 2359808
Conv2D_7 8,8,1024 4719616
BatchNormalization_3 8,8,1024 4096
MaxPooling2D_3 4,4,1024 0
Flatten 16384 0
Dense 512 8389120
Dense_1 256 131328
Dropout 256 0
Dense_2 64 16448
Dense_3 10 650
"""
VGG16 = """
vgg16_(Functional) 7,7,512 14714688
Flatten 25088 0
Dense 512 12845568
Dense_1 256 131328
Dropout 256 0
Dense_2 128 32896
Dense_3 10 1290
"""


def rows_of(text):
    rows = [line.split() for line in text.strip().splitlines()]
    return [(name.replace("_(", " ("), tuple(map(int, shape.split(","))), int(params)) for name, shape, params in rows]


def recipe(name, *sets):
    return configuration.load(name, ["model.weights=none", *sets] if name != "big_cnn" else list(sets)).model


def test_big_cnn_is_the_seeds_table():
    model = build(recipe("big_cnn"), 10)
    assert [tuple(row) for row in layer_table(model)] == rows_of(BIG_CNN)
    assert count(model) == 17_783_050 == sum(params for _, _, params in rows_of(BIG_CNN))


def test_vgg16_is_the_seeds_table():
    model = build(recipe("vgg16"), 10)
    assert [tuple(row) for row in layer_table(model)][1:] == rows_of(VGG16)
    assert count(model) == 27_725_770


def test_what_trains_in_vgg16():
    head = 27_725_770 - 14_714_688
    block5, block4_conv3 = 3 * (512 * 512 * 9 + 512), 512 * 512 * 9 + 512
    assert count(build(recipe("vgg16"), 10), trainable_only=True) == head + block5
    assert count(build(recipe("vgg16_notebook"), 10), trainable_only=True) == head + block5 + block4_conv3 == 22_450_314


def test_keras_constants():
    model = build(recipe("big_cnn"), 10)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(norm.eps == 1e-3 and norm.momentum == pytest.approx(0.01) for norm in norms)
    dense = model.head.dense0
    limit = (6 / (16384 + 512)) ** 0.5  # Glorot uniform
    assert dense.weight.abs().max() <= limit and dense.weight.abs().max() > 0.99 * limit and not dense.bias.any()
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == [0.2]
    assert [m.p for m in build(recipe("vgg16"), 10).modules() if isinstance(m, torch.nn.Dropout)] == [0.1]


def test_preprocessing_belongs_to_the_model():
    pictures = torch.randint(0, 256, (2, 76, 76, 3), dtype=torch.uint8)
    seen = []
    for name in ("big_cnn", "vgg16_pooled"):
        model = build(Model(name=name, input_size=76), 3).eval()
        model.base.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        assert torch.equal(model(pictures), model(pictures.float()))
    assert torch.allclose(seen[0], pictures.permute(0, 3, 1, 2) / 255)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    # Keras's vgg16.preprocess_input, in RGB order: minus the mean, no scaling.
    mean = torch.tensor([0.48235, 0.45882, 0.40784]).view(1, 3, 1, 1) * 255
    assert torch.allclose(seen[2], pictures.permute(0, 3, 1, 2) - mean, atol=1e-4)


@pytest.mark.parametrize("name", ["big_cnn", "vgg16", "vgg16_pooled", "resnet18", "mobilenet_v3_large", "convnext_tiny"])
@pytest.mark.parametrize("classes", [2, 20])
def test_a_step_on_any_number_of_classes(name, classes):
    model = build(Model(name=name, input_size=76, trainable=("head",)), classes)
    logits = model(torch.randint(0, 256, (2, 76, 76, 3), dtype=torch.uint8))
    assert logits.shape == (2, classes) and logits.dtype == torch.float32
    logits.sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_frozen_layers_stay_as_they_are():
    model = build(Model(name="resnet18", input_size=64, trainable=("layer4", "head")), 3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)).sum().backward()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("layer4" in name for name in changed)  # BatchNorm statistics of the part that trains, and no other
    assert not model.frozen_features
    assert build(Model(name="resnet18", input_size=64, trainable=("head",)), 3).frozen_features


def test_no_autograd_below_the_last_block():
    model = build(Model(name="vgg16", input_size=64, trainable=("block5", "head")), 3).train()
    seen = {}
    for name in ("block4_conv3", "block5_conv1"):
        model.base.get_submodule(name).register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output.requires_grad}))
    model(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert seen == {"block4_conv3": False, "block5_conv1": True}


def test_wrong_names_are_refused_with_the_right_ones():
    with pytest.raises(UserError, match="did you mean 'vgg16'"):
        build(Model(name="vgg_16"), 10)
    with pytest.raises(UserError, match="block5_conv1"):
        build(Model(name="vgg16", input_size=64, trainable=("block6",)), 10)
    with pytest.raises(UserError, match=r"model\.input_size: 64 is too small"):
        build(Model(name="big_cnn", input_size=64), 10)
    with pytest.raises(UserError, match="no pretrained weights"):
        build(Model(name="big_cnn", weights="imagenet"), 10)
    assert "big_cnn" in names() and "head.logits" in layer_names(build(Model(input_size=76), 2))


@pytest.mark.parametrize("prefix", ["features.", ""])
def test_weights_from_a_file(tmp_path, prefix):
    donor = build(Model(name="vgg16", input_size=32), 2)
    convolutions = [m for m in donor.base if isinstance(m, torch.nn.Conv2d)]
    state = {f"{prefix}{3 * i}.{part}": getattr(c, part).detach().half() for i, c in enumerate(convolutions) for part in ("weight", "bias")}
    path = tmp_path / "vgg.pth"
    torch.save(state, path)
    model = build(Model(name="vgg16_pooled", input_size=32, weights=str(path)), 5)
    assert torch.equal(model.base.block5_conv3.weight, convolutions[-1].weight.half().float())
    assert not torch.equal(build(Model(name="vgg16_pooled", input_size=32), 5).base.block1_conv1.weight, convolutions[0].weight.half().float())
    del state[f"{prefix}0.bias"]
    torch.save(state, path)
    with pytest.raises(UserError, match=r"block1_conv1\.bias missing"):
        build(Model(name="vgg16", input_size=32, weights=str(path)), 5)
    path.write_bytes(b"<html>")
    with pytest.raises(UserError, match="not a readable file of weights"):
        build(Model(name="vgg16", input_size=32, weights=str(path)), 5)
    with pytest.raises(UserError, match="no such file"):
        build(Model(name="vgg16", input_size=32, weights=str(tmp_path / "none.pth")), 5)


def test_a_download_that_fails_says_what_to_do(monkeypatch, tmp_path):
    def refuse(*arguments, **named):
        raise OSError("network is unreachable")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    with pytest.raises(UserError, match=r"vgg16_features-.*\.pth.*model\.weights=PATH.*model\.weights=none"):
        build(Model(name="vgg16", input_size=32, weights="imagenet"), 5)


@pytest.mark.sample
def test_the_real_weights_make_real_features(sample_data):
    import cv2

    pictures, labels = [], []
    for label in ("ragno", "farfalla"):
        import glob

        for path in sorted(glob.glob(f"{sample_data}/animals10_sample/{label}/*"))[:12]:
            pictures.append(cv2.resize(cv2.imread(path)[:, :, ::-1], (128, 128), interpolation=cv2.INTER_AREA))
            labels.append(label)
    model = build(Model(name="vgg16_pooled", input_size=128, weights=f"{sample_data}/vgg16_imagenet_features.pth", trainable=("head",)), 2).eval()
    import numpy as np

    features = model.features(torch.from_numpy(np.stack(pictures))).detach()
    alike = features @ features.T
    alike.fill_diagonal_(-1)
    nearest = alike.argmax(1)
    assert sum(labels[i] == labels[n] for i, n in enumerate(nearest)) >= 20  # of 24; random weights give about 12
