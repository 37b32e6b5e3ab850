import io

import numpy as np
import pytest
from PIL import Image

from animalclf.data.decode import BadPicture, decode, resize


def picture(height=60, width=80, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image, kind="JPEG", **options):
    sink = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(sink, kind, **options)
    return sink.getvalue()


def close(one, other, limit=4.0):
    return one.shape == other.shape and np.abs(one.astype(int) - other).mean() < limit


@pytest.mark.parametrize(
    "kind, options",
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("PNG", {}),
        ("WEBP", {"quality": 95}),
        ("BMP", {}),
        ("TIFF", {}),
    ],
)
def test_formats_give_the_picture(kind, options):
    found = decode(encoded(picture(), kind, **options), name=f"a.{kind.lower()}")
    assert found.image.dtype == np.uint8 and found.format == kind and found.note == "" and close(found.image, picture())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation(orientation, kind):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    found = decode(data, name=f"a.{kind.lower()}")
    assert close(found.image, expected) and ("EXIF" in found.note) == (orientation != 1)


@pytest.mark.parametrize("before", [b"\xff", b"\xff\xff", b"\xff\xd0"])
def test_exif_orientation_after_bytes_that_readers_skip(before):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture(20, 40), "JPEG", exif=exif)
    at = data.index(b"\xff\xe1")
    found = decode(data[:at] + before + data[at:], name="a.jpg")
    assert found.image.shape == (40, 20, 3) and "EXIF" in found.note


def test_modes_become_rgb():
    rgb = picture()
    grey = Image.fromarray(rgb).convert("L")
    for data, note in [(encoded(grey), ""), (encoded(grey, "PNG"), "")]:
        found = decode(data)
        assert close(found.image, np.asarray(grey.convert("RGB"))) and found.note == note
    palette = Image.fromarray(rgb).convert("P", palette=Image.Palette.ADAPTIVE)
    assert close(decode(encoded(palette, "PNG")).image, rgb, 20)
    cmyk = decode(encoded(Image.fromarray(rgb).convert("CMYK"), quality=95), name="x.jpg")
    assert close(cmyk.image, rgb, 6) and "CMYK" in cmyk.note


def test_transparency_lies_on_white():
    layer = np.dstack([picture(), np.zeros((60, 80), np.uint8)])
    layer[:30, :, 3] = 255
    found = decode(encoded(layer, "PNG"))
    assert (found.image[40:] == 255).all() and close(found.image[:30], picture()[:30]) and "white" in found.note


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 80).astype(np.uint16)[None].repeat(60, 0)
    found = decode(encoded(Image.fromarray(ramp), "PNG"))
    assert found.image.shape == (60, 80, 3) and abs(int(found.image[0, 40, 0]) - 129) < 3 and found.image.max() == 255


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(picture(seed=s)) for s in range(3)]
    for kind in ("GIF", "WEBP"):
        found = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]), name=f"a.{kind.lower()}")
        assert close(found.image, picture(seed=0), 25) and "animated" in found.note


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_truncated_files_are_refused(kind, share):
    noisy = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    data = encoded(noisy, kind)
    with pytest.raises(BadPicture, match=r"truncated|damaged|not a picture"):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty file"),
        (b"\n<!DOCTYPE html><html><body>404", "HTML page"),
        (b"404: not found", "text, not a picture"),
        (b"\0" * 500, "500 zero bytes"),
        (bytes(range(128, 256)) * 8, "not a picture of a known format"),
        (b"\xff\xd8\xff\xe0" + b"\1" * 100, "damaged: "),
    ],
)
def test_what_is_no_picture_is_named(data, reason):
    with pytest.raises(BadPicture, match=reason):
        decode(data, name="a.jpg")


def test_bytes_changed_in_the_middle_are_noticed_or_decoded_whole():
    data = bytearray(encoded(picture(240, 320), quality=90))
    middle = len(data) // 2
    data[middle : middle + 40] = b"\xff\xd9" * 20  # an end marker in the middle of the picture
    with pytest.raises(BadPicture):
        decode(bytes(data))


def test_a_lying_extension_is_noted():
    assert decode(encoded(picture(), "PNG"), name="cat.jpg").note == "PNG named .jpg"
    assert decode(encoded(picture()), name="cat.JPEG").note == ""


def test_decompression_bombs_are_refused_before_decoding():
    data = encoded(Image.new("1", (9000, 9000)), "PNG")
    assert len(data) < 50_000
    with pytest.raises(BadPicture, match=r"9000 x 9000 pixels \(limit 1,000,000"):
        decode(data, max_pixels=1_000_000)


def test_resize_squashes_and_keeps_the_mean():
    image = picture(90, 120)
    small = resize(image, 32)
    assert small.shape == (32, 32, 3) and abs(small.mean() - image.mean()) < 2
    assert resize(image[:20, :20], 64).shape == (64, 64, 3)
    assert np.array_equal(resize(image[:32, :32], 32), image[:32, :32])


@pytest.mark.sample
def test_real_pictures_decode_as_pillow_does(sample_data):
    from pathlib import Path

    files = sorted(Path(sample_data, "animals10_sample").rglob("*.jp*g"))[::16]
    assert len(files) >= 20
    for path in files:
        expected = np.asarray(Image.open(path).convert("RGB"))
        assert np.abs(decode(path.read_bytes(), name=path.name).image.astype(int) - expected).mean() < 1
