import io

import numpy as np
import pytest
from PIL import Image

from animalclf.data.decode import UnreadableImage, decode, resize


def smooth_image(height=60, width=80, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(image, kind="JPEG", **options):
    sink = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(sink, kind, **options)
    return sink.getvalue()


def close(first, second, limit=4.0):
    return first.shape == second.shape and np.abs(first.astype(int) - second).mean() < limit


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
def test_formats_decode_to_the_image(kind, options):
    decoded = decode(encoded(smooth_image(), kind, **options), name=f"a.{kind.lower()}")
    assert (
        decoded.image.dtype == np.uint8
        and decoded.format == kind
        and decoded.note == ""
        and close(decoded.image, smooth_image())
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation(orientation, kind):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth_image(), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    decoded = decode(data, name=f"a.{kind.lower()}")
    assert close(decoded.image, expected) and ("EXIF" in decoded.note) == (orientation != 1)


@pytest.mark.parametrize("before", [b"\xff", b"\xff\xff", b"\xff\xd0"])
def test_exif_orientation_after_bytes_that_readers_skip(before):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(smooth_image(20, 40), "JPEG", exif=exif)
    at = data.index(b"\xff\xe1")
    decoded = decode(data[:at] + before + data[at:], name="a.jpg")
    assert decoded.image.shape == (40, 20, 3) and "EXIF" in decoded.note


def test_modes_become_rgb():
    rgb = smooth_image()
    grey = Image.fromarray(rgb).convert("L")
    for data, note in [(encoded(grey), ""), (encoded(grey, "PNG"), "")]:
        decoded = decode(data)
        assert close(decoded.image, np.asarray(grey.convert("RGB"))) and decoded.note == note
    palette = Image.fromarray(rgb).convert("P", palette=Image.Palette.ADAPTIVE)
    assert close(decode(encoded(palette, "PNG")).image, rgb, 20)
    cmyk = decode(encoded(Image.fromarray(rgb).convert("CMYK"), quality=95), name="x.jpg")
    assert close(cmyk.image, rgb, 6) and "CMYK" in cmyk.note


def test_transparency_is_composited_on_white():
    layer = np.dstack([smooth_image(), np.zeros((60, 80), np.uint8)])
    layer[:30, :, 3] = 255
    decoded = decode(encoded(layer, "PNG"))
    assert (
        (decoded.image[40:] == 255).all() and close(decoded.image[:30], smooth_image()[:30]) and "white" in decoded.note
    )


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 80).astype(np.uint16)[None].repeat(60, 0)
    decoded = decode(encoded(Image.fromarray(ramp), "PNG"))
    assert (
        decoded.image.shape == (60, 80, 3)
        and abs(int(decoded.image[0, 40, 0]) - 129) < 3
        and decoded.image.max() == 255
    )


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(smooth_image(seed=s)) for s in range(3)]
    for kind in ("GIF", "WEBP"):
        decoded = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]), name=f"a.{kind.lower()}")
        assert close(decoded.image, smooth_image(seed=0), 25) and "animated" in decoded.note


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("fraction", [0.3, 0.7, 0.97])
def test_truncated_files_are_refused(kind, fraction):
    noisy = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    data = encoded(noisy, kind)
    with pytest.raises(UnreadableImage, match=r"truncated|damaged|not an image"):
        decode(data[: int(len(data) * fraction)])


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty file"),
        (b"\n<!DOCTYPE html><html><body>404", "HTML page"),
        (b"404: not found", "text, not an image"),
        (b"\0" * 500, "500 zero bytes"),
        (bytes(range(128, 256)) * 8, "not an image of a known format"),
        (b"\xff\xd8\xff\xe0" + b"\1" * 100, "damaged: "),
    ],
)
def test_files_that_are_no_images_are_named(data, reason):
    with pytest.raises(UnreadableImage, match=reason):
        decode(data, name="a.jpg")


def test_bytes_changed_in_the_middle_are_noticed_or_decoded_whole():
    data = bytearray(encoded(smooth_image(240, 320), quality=90))
    middle = len(data) // 2
    data[middle : middle + 40] = b"\xff\xd9" * 20  # an end marker in the middle of the image
    with pytest.raises(UnreadableImage):
        decode(bytes(data))


def test_a_lying_extension_is_noted():
    assert decode(encoded(smooth_image(), "PNG"), name="cat.jpg").note == "PNG named .jpg"
    assert decode(encoded(smooth_image()), name="cat.JPEG").note == ""


def test_decompression_bombs_are_refused_before_decoding():
    data = encoded(Image.new("1", (9000, 9000)), "PNG")
    assert len(data) < 50_000
    with pytest.raises(UnreadableImage, match=r"9000 x 9000 pixels \(limit 1,000,000"):
        decode(data, max_pixels=1_000_000)


def test_resize_stretches_to_a_square_and_preserves_the_mean():
    image = smooth_image(90, 120)
    small = resize(image, 32)
    assert small.shape == (32, 32, 3) and abs(small.mean() - image.mean()) < 2
    assert resize(image[:20, :20], 64).shape == (64, 64, 3)
    assert np.array_equal(resize(image[:32, :32], 32), image[:32, :32])


@pytest.mark.sample
def test_real_images_decode_as_pillow_does(sample_data):
    from pathlib import Path

    files = sorted(Path(sample_data, "animals10_sample").rglob("*.jp*g"))[::16]
    assert len(files) >= 20
    for path in files:
        expected = np.asarray(Image.open(path).convert("RGB"))
        assert np.abs(decode(path.read_bytes(), name=path.name).image.astype(int) - expected).mean() < 1
