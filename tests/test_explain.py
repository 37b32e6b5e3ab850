"""Heat maps: what speaks for a class lies where the class is drawn."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import LITE
from PIL import Image
from run_folders import untrained_run_folder
from torch import nn

import animalclf
from animalclf import config as configuration
from animalclf.cli import main
from animalclf.errors import UserError
from animalclf.explain.explain import file_name
from animalclf.inference.explanation import SIDE, normalized
from animalclf.inference.heat_maps import feature_layer, forward_pass, heat_map
from animalclf.inference.views import UNDONE, VIEWS
from animalclf.models.classifier import Classifier
from animalclf.models.fitted_heads import FittedHeads, KernelHead, LinearHead
from animalclf.models.pooling import GlobalPool

S = 32
CORNERS = [(0, 0), (0, 1), (1, 0), (1, 1)]  # (bottom?, right?)


def corner_mass(evidence, corner):
    """The fraction of a map (S, S) in a quarter."""
    half = evidence.shape[0] // 2
    y, x = corner[0] * half, corner[1] * half
    return float(evidence[y : y + half, x : x + half].sum() / evidence.sum())


def map_of(model, layer, image, number):
    return heat_map(model, forward_pass(model, layer, image), number)


def colour_image(*squares):
    """A grey image float32 (1, S, S, 3) with squares of the channels 0, 1 or 2 in corners: (channel, corner), ..."""
    image = np.full((1, S, S, 3), 60, np.float32)
    for channel, (y, x) in squares:
        image[0, y * 18 + 3 : y * 18 + 11, x * 18 + 3 : x * 18 + 11, channel] = 255
    return torch.from_numpy(image)


def colour_base(*last):
    """Maps (N, 3, 8, 8) of the brightness of each colour channel above that of the grey."""
    conv = nn.Conv2d(3, 3, 4, stride=4)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(3)[:, :, None, None] / 16)
        conv.bias.fill_(-60 / 255)
    return nn.Sequential(conv, nn.ReLU(inplace=True), *last)


def fitted_heads():
    """A dense layer and a kernel layer of 3 classes on the maxima and means of three maps."""
    weight, ones = torch.cat([torch.eye(3)] * 2, 1), torch.ones(())
    linear = LinearHead({"weight": weight, "bias": torch.zeros(3), "temperature": ones})
    kernel = {"weight": torch.eye(3), "bias": torch.zeros(3), "temperature": ones, "gamma": 0.3 * ones}
    kernel |= {"mean": torch.zeros(6), "support": weight * 2}
    return FittedHeads({"linear": linear, "kernel": KernelHead(kernel)})


def dense_head():
    """Two dense layers on the flattened maps: the sum over each map, and a ReLU."""
    first, second = nn.Linear(3 * 64, 3), nn.Linear(3, 3)
    with torch.no_grad():
        first.weight.copy_(torch.eye(3).repeat_interleave(64, 1) / 64)
        second.weight.copy_(torch.eye(3))
        for layer in (first, second):
            layer.bias.zero_()
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second)


HEADS = {
    "mean": ((GlobalPool("mean"),), lambda: nn.Sequential(linear_identity())),
    "fitted": ((GlobalPool("mean_max"),), fitted_heads),
    "flattened": ((nn.MaxPool2d(1),), dense_head),
}


def linear_identity():
    layer = nn.Linear(3, 3)
    nn.init.eye_(layer.weight)
    return layer


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("corner", CORNERS)
def test_the_map_of_a_class_lies_in_the_corner_where_it_is_drawn(head, corner):
    last, make_head = HEADS[head]
    model = Classifier(colour_base(*last), nn.Sequential(), (0, 0, 0), (1, 1, 1), S, 3).eval()
    model.head, model.any_shape = make_head(), head != "flattened"
    layer = feature_layer(model, S)
    opposite = (1 - corner[0], 1 - corner[1])
    image = colour_image((0, corner), (2, opposite))
    assert corner_mass(map_of(model, layer, image, 0), corner) > 0.95
    assert corner_mass(map_of(model, layer, image, 2), opposite) > 0.95
    assert map_of(model, layer, colour_image((2, corner)), 1).max() == 0  # nothing speaks for the class


@pytest.mark.parametrize("number", range(4))
def test_a_class_that_is_a_place_has_its_map_there(number):
    """Four equal squares; class c is the brightness of corner c, of which a head on flattened maps knows."""
    model = Classifier(colour_base(), nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)), (0, 0, 0), (1, 1, 1), S, 4)
    weight = torch.zeros(4, 3, 8, 8)
    for label, (y, x) in enumerate(CORNERS):
        weight[label, :, y * 4 : y * 4 + 4, x * 4 : x * 4 + 4] = 1
    with torch.no_grad():
        model.head[1].weight.copy_(weight.flatten(1))
    image = colour_image(*((0, corner) for corner in CORNERS))
    assert corner_mass(map_of(model, feature_layer(model, S), image, number), CORNERS[number]) > 0.9


def test_the_map_of_a_mean_and_a_dense_layer_is_its_part_of_the_score():
    """CAM (Zhou and others 2016): the maps of two classes are the positive and the negative part of one, whose mean is
    the difference of the logits without their bias."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Sigmoid(), GlobalPool("mean"))
    model = Classifier(base, nn.Sequential(nn.Linear(5, 2, bias=False)), (0, 0, 0), (1, 1, 1), S, 2).eval()
    image, layer = torch.randint(256, (1, S, S, 3)).float(), feature_layer(model, S)
    assert layer.module is base[1]
    difference = map_of(model, layer, image, 1) - map_of(model, layer, image, 0)
    first, second = model(image)[0].tolist()
    assert difference.sum() == pytest.approx(second - first, rel=1e-4) and np.ptp(difference) > 0
    pixels = (
        base[:2](image.permute(0, 3, 1, 2) / 255)[0]
        * (model.head[0].weight[1] - model.head[0].weight[0])[:, None, None]
    ).sum(0)
    np.testing.assert_allclose(difference, pixels.detach() / S**2, atol=1e-6)


# --------------------------------------------------------------------------------------------------- trained networks


def shapes(count, seed):
    """Noise float32 (N, S, S, 3) with a shape in one corner: class 0 horizontal, class 1 vertical stripes. The classes
    int64 (N,) and the corners."""
    generator = np.random.default_rng(seed)
    images = generator.integers(90, 160, (count, S, S, 3)).astype(np.float32)
    labels, corners = generator.integers(0, 2, count), [CORNERS[number % 4] for number in range(count)]
    stripes = np.repeat((np.arange(12) // 2 % 2 * 255)[:, None], 12, 1)
    for image, label, (y, x) in zip(images, labels, corners, strict=True):
        image[y * 16 + 2 : y * 16 + 14, x * 16 + 2 : x * 16 + 14] = (stripes.T if label else stripes)[:, :, None]
    return torch.from_numpy(images), torch.from_numpy(labels), corners


def test_a_trained_network_sees_its_class_where_it_is_drawn():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(inplace=True), nn.Conv2d(8, 16, 3), nn.ReLU(inplace=True)]
    base = nn.Sequential(*layers, nn.MaxPool2d(2), GlobalPool("mean"))
    model = Classifier(base, nn.Sequential(nn.Linear(16, 2)), (0.5,) * 3, (0.25,) * 3, S, 2)
    model.any_shape = True
    images, labels, _ = shapes(64, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()
    images, labels, corners = shapes(32, seed=1)
    assert (model(images).argmax(1) == labels).float().mean() > 0.9
    layer = feature_layer(model, S)
    maps = [map_of(model, layer, image[None], int(label)) for image, label in zip(images, labels, strict=True)]
    masses = [corner_mass(evidence, corner) for evidence, corner in zip(maps, corners, strict=True)]
    assert np.mean(masses) > 0.8


# ------------------------------------------------------------------------------------------------------ models of runs


@pytest.fixture(scope="module")
def kept_run(tmp_path_factory):
    """The folder of a run whose images keep their shape, with an untrained network."""
    sets = LITE | {
        "data.resize": "keep",
        "data.stored_size": 96,
        "model.trainable": ["head"],
        "train.precision": "fp32",
    }
    return untrained_run_folder(tmp_path_factory.mktemp("kept"), config=configuration.load("big_cnn", sets))


@pytest.fixture(scope="module")
def model(untrained_run):
    return animalclf.load(untrained_run, device="cpu")


def photo(height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def test_an_explanation_has_the_probabilities_of_predict(model):
    images = [photo(60, 90), photo(90, 60, 1), photo(900, 450, 2)]
    explanations, probabilities = model.explain(images), model.predict_proba(images)
    assert [item.class_name for item in explanations] == [item.predicted for item in explanations]
    assert [item.predicted for item in explanations] == model.predict(images)
    np.testing.assert_allclose([item.probability for item in explanations], probabilities.max(1), rtol=1e-5)
    assert [item.heat_map.shape for item in explanations] == [(60, 90), (90, 60), (SIDE, SIDE // 2)]
    for item in explanations:
        assert item.heat_map.dtype == np.float32 and item.heat_map.min() >= 0 and item.heat_map.max() in (0, 1)
        assert item.overlay.shape == item.image.shape and item.png().startswith(b"\x89PNG")
    asked = model.explain(images[:1], class_name="class2")[0]
    assert asked.class_name == "class2" and asked.probability == pytest.approx(probabilities[0, 2], rel=1e-5)
    assert model.explain([]) == []


def test_the_overlay_is_the_grey_image_where_nothing_speaks_for_the_class(model):
    (item,) = model.explain(photo(60, 90))
    blank = replace(item, heat_map=np.zeros((60, 90), np.float32))
    assert (blank.overlay == cv2.cvtColor(item.image, cv2.COLOR_RGB2GRAY)[:, :, None]).all()
    assert (blank.side_by_side[:, :90] == item.image).all()
    assert normalized(np.zeros((4, 4), np.float32), 2, 3).tolist() == [[0, 0, 0]] * 2


def test_views_are_averaged_in_the_places_of_the_image(model):
    image = photo(80, 80)
    plain, flipped = (model.explain(item, "class1")[0].heat_map for item in (image, image[:, ::-1]))
    both, turned = (model.explain(item, "class1", views="flip")[0].heat_map for item in (image, image[:, ::-1]))
    np.testing.assert_allclose(both, turned[:, ::-1], atol=1e-4)
    assert np.abs(plain - flipped[:, ::-1]).max() > 0.01
    square = np.zeros((1, 64, 64, 3), np.uint8)
    square[0, 8:16, 40:56] = 255
    for view, undone in zip(VIEWS["multi"], UNDONE["multi"], strict=True):
        back = undone(view(square)[:, :, :, 0].astype(np.float32) / 255)
        assert np.abs(back[0] - square[0, :, :, 0] / 255).mean() < 0.01  # but for its blurred edges


def test_an_image_file_is_explained_as_it_is_upright(model, tmp_path):
    pixels = photo(60, 90)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(pixels).convert("L").save(tmp_path / "grey.png")
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "cmyk.tif")
    turned, grey, cmyk = model.explain([str(tmp_path / name) for name in ("turned.png", "grey.png", "cmyk.tif")])
    (expected,) = model.explain(np.ascontiguousarray(np.rot90(pixels, -1)))
    np.testing.assert_array_equal(turned.image, expected.image)
    np.testing.assert_array_equal(turned.heat_map, expected.heat_map)
    assert np.ptp(grey.image, axis=2).max() == 0 and cmyk.image.shape == (60, 90, 3)
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"text\.jpg: cannot be read"):
        model.explain(str(tmp_path / "text.jpg"))


def test_a_kept_shape_has_a_map_of_its_shape(kept_run):
    model = animalclf.load(kept_run, device="cpu")
    torch.manual_seed(0)
    nn.init.normal_(model._classifier.head.logits.weight)  # they begin as zeros
    wide, tall = photo(40, 160), photo(160, 40, 1)
    for image in (wide, tall, photo(200, 200, 2)):
        maps = [model.explain(image, name)[0].heat_map for name in model.classes]
        assert maps[0].shape == image.shape[:2]
        # Something speaks for one of the classes at each place of the image, up to its edges: no padding is in the map.
        assert (np.max(maps, 0) > 0).mean() > 0.5 and np.max(maps, 0)[-1].max() > 0 and np.max(maps, 0)[:, -1].max() > 0
    with pytest.raises(UserError, match="multi"):
        model.explain(wide, views="multi")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"class_name": "clas1"}, "'clas1' is no class of this model (did you mean 'class1'?): class0, class1, class2"),
        ({"views": "all"}, "views: 'all' is not one of"),
    ],
)
def test_an_unknown_class_or_view_is_named(model, arguments, message):
    with pytest.raises(UserError) as error:
        model.explain(photo(20, 20), **arguments)
    assert message in str(error.value)


def test_a_network_of_tokens_is_refused_by_its_name(untrained_run):
    class Tokens(nn.Module):
        """A patch embedding, and the first token of a layer that mixes all."""

        def __init__(self):
            super().__init__()
            self.patches, self.encoder = nn.Conv2d(3, 4, 8, stride=8), nn.TransformerEncoderLayer(4, 1, 8)

        def forward(self, pixels):
            return self.encoder(self.patches(pixels).flatten(2).transpose(1, 2))[:, 0]

    model = animalclf.load(untrained_run, device="cpu")
    model._classifier = Classifier(Tokens(), nn.Sequential(nn.Linear(4, 3)), (0, 0, 0), (1, 1, 1), 32, 3).eval()
    with pytest.raises(UserError, match="big_cnn has no map of features at its end"):
        model.explain(photo(20, 20))


# -------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def folder(tmp_path):
    """Three images with odd names, of which one has a turned and one a grey photo, and a text named .png."""
    names = ["a b/<b>dog'&.jpg", "牛.png", "line\nbreak.png"]
    for number, name in enumerate(names):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(40 + 20 * number, 60, number)).convert("L" if number == 1 else "RGB").save(path)
    (tmp_path / "photos" / "text.png").write_text("no image")
    return tmp_path / "photos"


def test_the_command_writes_a_png_file_a_row_and_an_entry_of_each_image(untrained_run, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["explain", untrained_run, str(folder), "--out", str(out), "--json"]) == 3  # one is unreadable
    printed = capsys.readouterr()
    assert "text.png: text, not an image" in printed.err and "3 images in" in printed.err
    result = json.loads(printed.out)
    assert result["images"] == 3 and [item["path"] for item in result["unreadable"]] == [str(folder / "text.png")]
    table = pd.read_csv(result["index"], keep_default_na=False).set_index("path")
    model = animalclf.load(untrained_run, device="cpu")
    for name in ("a b/<b>dog'&.jpg", "牛.png"):
        row = table.loc[str(folder / name)]
        (expected,) = model.explain(str(folder / name))
        assert (row["class"], row["predicted"], row["status"]) == (expected.class_name, expected.predicted, "ok")
        assert float(row["probability"]) == pytest.approx(expected.probability, rel=1e-6)
        assert expected.class_name in row["file"] and f"{expected.probability:.2f}" in row["file"]
        np.testing.assert_array_equal(np.asarray(Image.open(out / row["file"])), expected.side_by_side)
    files = {path.name for path in out.iterdir()}
    assert files == {*table.loc[table["status"] == "ok", "file"], "index.csv", "explain.html"}
    page = (out / "explain.html").read_text()
    assert page.count("<img") == 3 and "&lt;b&gt;dog" in page and "<b>dog" not in page and "牛.png" in page
    assert "default-src 'none'" in page and "<script" not in page
    assert all(url.startswith("data:") for url in re.findall(r'(?:src|href)="([^"]*)"', page))


def test_another_class_fewer_images_and_two_arguments(untrained_run, folder, tmp_path):
    arguments = {"out": tmp_path / "out", "class_name": "class2", "views": "flip"}
    result = animalclf.explain(untrained_run, [folder / "牛.png", folder / "a b"], **arguments)
    table = pd.read_csv(result.index)
    assert result.images == 2 and result.views == "flip" and set(table["class"]) == {"class2"}
    assert animalclf.explain(untrained_run, folder, limit=1, out=tmp_path / "one").images == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{run}", "{photos}", "--class", "clas1"], "'clas1' is no class of this model (did you mean 'class1'?)"),
        (["{run}", "{photos}/nothing"], "photos/nothing: no such folder or file"),
        (["{run}", "{empty}"], "empty: no images found"),
        (["{empty}", "{photos}"], "no run in this folder"),
    ],
)
def test_what_cannot_be_explained_is_refused_before_any_work(
    arguments, message, untrained_run, folder, tmp_path, capsys
):
    (tmp_path / "empty").mkdir()
    names = {"run": untrained_run, "photos": folder, "empty": tmp_path / "empty"}
    assert main(["explain", *(word.format(**names) for word in arguments), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_file_name_fits_any_file_system(model):
    (item,) = model.explain(photo(20, 20))
    long = replace(item, class_name="牛" * 99, probability=0.123)
    name = file_name(7, f"a/{'象' * 99}/{'/'.join(['x', '馬' * 99])}.jpeg", long)
    assert name.startswith("0007-馬") and name.endswith("牛-0.12.png") and len(name.encode()) <= 255
    assert (
        file_name(1, 'a:b?*"<>|.jpg', replace(item, class_name="../x")) == f"0001-a_b_-.._x-{item.probability:.2f}.png"
    )
