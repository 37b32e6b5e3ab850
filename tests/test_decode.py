import io
import os
import re
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from fuzz import corpus
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from animalclf.data.decode import UnreadableImage, decode, from_pil
from animalclf.data.resize import resize


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


def _peak(data: bytes) -> int:
    """Bytes of memory that decoding takes at most."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak becomes the current size
    before = _peak_size()
    decode(data)
    return _peak_size() - before


def _peak_size() -> int:
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of the memory is Linux's")
@pytest.mark.parametrize("mode", ["RGBA", "I;16", "P"])
def test_a_large_image_takes_little_more_memory_than_its_pixels(mode):
    sink = io.BytesIO()
    row = np.arange(4000) // 16
    image = Image.fromarray(np.tile(row, (3000, 1)).astype(np.uint16 if mode == "I;16" else np.uint8))
    (image if mode == "I;16" else image.convert(mode)).save(sink, "PNG", compress_level=1)
    decode(sink.getvalue())  # what the libraries keep
    assert _peak(sink.getvalue()) < 12 * 4000 * 3000


@pytest.mark.parametrize("kind", ["WEBP", "JPEG2000"])
def test_a_small_file_of_many_pixels_is_refused_before_decoding(kind, monkeypatch):
    sink = io.BytesIO()
    Image.new("RGB", (1200, 1000)).save(sink, kind)
    decode(sink.getvalue())
    monkeypatch.setattr("animalclf.data.decode.MAX_BYTES", 2**24)
    monkeypatch.setattr("animalclf.data.decode.MAX_PIXELS_PER_BYTE", 1_190_000 // len(sink.getvalue()))
    with pytest.raises(UnreadableImage, match=r"^too large: 1200 x 1000 pixels in [\d,]+ bytes, a decompression bomb"):
        decode(sink.getvalue())


def test_false_lengths_in_a_header_are_refused_before_they_take_memory_or_time():
    dark = cv2.imencode(".png", smooth_image(20, 24).astype(np.uint16) * 16)[1].tobytes()  # OpenCV reads 12 bits
    assert decode(dark).note == "scaled from 12 bits" and dark[37:41] == b"IDAT"
    with pytest.raises(UnreadableImage, match="a chunk is longer than the file"):
        decode(dark[:33] + b"\xff" + dark[34:])
    rle = corpus._bmp_rle8(np.full((20, 24), 7, np.uint8))
    with pytest.raises(UnreadableImage, match=r"^too large: 4194328 x 20 pixels in [\d,]+ bytes, a decompression bomb"):
        decode(rle[:20] + b"\x40" + rle[21:])


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


# Kinds of files from public reports that readers refuse, misread or raise odd errors for.


def inserted(data, marker, extra):
    """`extra` before the first `marker` of a JPEG file."""
    position = data.index(marker)
    return data[:position] + extra + data[position:]


def without_sos_parameters(data):
    position = data.index(b"\xff\xda")
    position += 5 + 2 * data[position + 4]
    return data[:position] + b"\0\0\0" + data[position + 3 :]


def with_adobe_transform(data, transform):
    start = data.index(b"\xff\xe0")
    return inserted(data[:start] + data[start + 18 :], b"\xff\xdb", b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + transform)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        lambda data: data.replace(b"JFIF\0\1\1", b"JFIF\0\0\0", 1),
        lambda data: inserted(data, b"\xff\xdb", b"abc"),
        lambda data: data[:-2] + bytes(500) + data[-2:],
        lambda data: inserted(data[:-2] + bytes(500) + data[-2:], b"\xff\xdb", b"abc"),
        lambda data: with_adobe_transform(data, b"\x09"),
        without_sos_parameters,
        lambda data: data[:-2],
        lambda data: data[:-1],
        lambda data: data + b"trailing bytes" * 50,
    ],
)
def test_a_whole_jpeg_with_other_faults_is_used(fault, progressive):
    data = encoded(smooth_image(), quality=90, progressive=progressive)
    if fault is without_sos_parameters and progressive:
        pytest.skip("the scans of a progressive file differ in their parameters")
    assert np.array_equal(decode(fault(data), name="a.jpg").image, decode(data).image)


@pytest.mark.parametrize("progressive", [False, True])
def test_other_faults_do_not_hide_lost_pixels(progressive):
    noisy = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    data = encoded(noisy, quality=90, progressive=progressive)
    for cut in (data[:-40], data[: len(data) // 2]):
        for faulty in (inserted(cut, b"\xff\xdb", b"abc"), with_adobe_transform(cut, b"\x09"), cut + b"\xff\xd9"):
            with pytest.raises(UnreadableImage, match="truncated"):
                decode(faulty)


def test_a_damaged_cmyk_jpeg_is_refused():
    data = encoded(Image.fromarray(smooth_image()).convert("CMYK"), quality=95)
    with pytest.raises(UnreadableImage, match="truncated"):
        decode(data[: len(data) // 2] + b"\xff\xd9")


@pytest.mark.parametrize("sampling", [0x411111, 0x221111, 0x121111, 0x211111, 0x111111])
def test_any_chroma_subsampling_is_read(sampling):
    image = smooth_image(64, 96)
    data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling])[1].tobytes()
    assert close(decode(data).image, image, 6)


@pytest.mark.parametrize(
    "error", [KeyError(6), ValueError("Could not determine subsampling level of JPEG image")], ids=["4:4:1", "3:1:1"]
)
def test_a_subsampling_that_turbojpeg_does_not_know_is_read(monkeypatch, error):
    def unknown(*arguments, **settings):
        raise error

    monkeypatch.setattr("simplejpeg.decode_jpeg_header", unknown)
    assert close(decode(encoded(smooth_image(), quality=95)).image, smooth_image())


def exif_with(tag, kind, count, value):
    """EXIF data with orientation 6 and one odd entry."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHI", tag, kind, count) + value
    return b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + b"\0\0\0\0"


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "entry",
    [
        (0x8769, 4, 1, struct.pack("<I", 99_999)),  # a directory outside of the file
        (0x8769, 2, 4, b"abcd"),  # a directory that is a text
        (0x8825, 7, 4, b"abcd"),
        (0x829A, 5, 1, struct.pack("<I", 1000)),  # a rational outside of the file
        (0x010E, 2, 500, struct.pack("<I", 8)),
        (0x010E, 99, 1, b"abcd"),  # an unknown type
        (0x011A, 12, 1, struct.pack("<I", 1)),
        (0x0128, 2, 4, b"x\0\0\0"),  # a text where a number belongs
    ],
)
def test_odd_exif_entries_do_not_matter(kind, entry):
    more = {"save_all": True, "append_images": [Image.fromarray(smooth_image(seed=1))]} if kind == "MPO" else {}
    decoded = decode(encoded(smooth_image(), kind, exif=exif_with(*entry), **more))
    assert close(decoded.image, np.rot90(smooth_image(), -1), 12) and "EXIF" in decoded.note


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_unknown_orientation_is_no_rotation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(smooth_image(), exif=exif, quality=95))
    assert close(decoded.image, smooth_image()) and decoded.note == ""


RAMP = np.linspace(0, 255, 80)[None].repeat(60, 0)


def tiff(values):
    return cv2.imencode(".tiff", values)[1].tobytes()


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf, -3.4e38, -9999.0])
def test_missing_values_of_a_float_tiff_do_not_set_the_scale(missing):
    values = RAMP.astype(np.float32) / 300
    values[:10, :10] = missing
    decoded = decode(encoded(Image.fromarray(values), "TIFF"))
    assert close(decoded.image[20:, :, 0], RAMP[20:], 2) and (decoded.image[:10, :10] == 0).all()
    assert "missing values black" in decoded.note


def test_the_nodata_value_of_gdal_is_a_missing_value():
    values, info = RAMP.astype(np.float32), TiffImagePlugin.ImageFileDirectory_v2()
    values[:10, :10], info[42113] = 777, "777"
    decoded = decode(encoded(Image.fromarray(values), "TIFF", tiffinfo=info))
    assert close(decoded.image[20:, :, 0], RAMP[20:], 2) and (decoded.image[:10, :10] == 0).all()


def test_an_image_without_finite_values_is_refused():
    with pytest.raises(UnreadableImage, match="no finite values"):
        decode(encoded(Image.fromarray(np.full((60, 80), np.nan, np.float32)), "TIFF"))


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype(np.int32),
        (RAMP * 100_000).astype(np.int32),
        (RAMP - 128).astype(np.int32),
        (RAMP * 100 - 9000).astype(np.int16),
        (RAMP * 16).astype(np.uint16),
        (RAMP * 1e7).astype(np.uint32),
        RAMP.astype(np.float64),
    ],
)
def test_any_integer_tiff_is_scaled_to_its_range(values):
    decoded = decode(tiff(values))
    assert close(decoded.image[:, :, 0], RAMP, 3) and decoded.image.max() >= 253 and "scaled from" in decoded.note


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_12_bits_in_16_are_not_black(suffix, channels):
    values = (RAMP * 16).astype(np.uint16)
    data = cv2.imencode(suffix, values if channels == 1 else np.dstack([values] * 3))[1].tobytes()
    decoded = decode(data)
    assert close(decoded.image[:, :, 0], RAMP, 3) and "12 bits" in decoded.note


def test_a_float_tiff_of_three_channels_is_read():
    decoded = decode(tiff(smooth_image()[:, :, ::-1].astype(np.float32) / 255))
    assert close(decoded.image, smooth_image(), 3)


@pytest.mark.parametrize("kind", ["PNG", "TGA", "BMP", "WEBP"])
def test_alpha_that_is_0_everywhere_is_ignored(kind):
    layer = np.dstack([smooth_image(), np.zeros((60, 80), np.uint8)])
    options = {"exact": True, "lossless": True} if kind == "WEBP" else {}
    assert close(decode(encoded(layer, kind, **options)).image, smooth_image())


def test_palette_entries_are_transparent_one_by_one():
    palette = Image.fromarray(smooth_image()).quantize(16)
    indices, rgb = np.asarray(palette), np.asarray(palette.convert("RGB"))
    for kind in ("PNG", "GIF"):
        decoded = decode(encoded(palette, kind, transparency=3)).image
        assert (decoded[indices == 3] == 255).all() and np.array_equal(decoded[indices != 3], rgb[indices != 3])


@pytest.mark.parametrize("compressed", [False, True])
def test_long_texts_in_a_png_do_not_matter(compressed):
    texts, exif = PngImagePlugin.PngInfo(), Image.Exif()
    texts.add_text("comment", "x" * 2_000_000, zip=compressed)
    exif[0x0112] = 6
    decoded = decode(encoded(smooth_image(), "PNG", pnginfo=texts, exif=exif))
    assert np.array_equal(decoded.image, np.rot90(smooth_image(), -1))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "TGA", "JPEG2000", "QOI", "AVIF"])
def test_truncated_files_of_other_formats_are_refused(kind):
    data = encoded(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8), kind)
    with pytest.raises(UnreadableImage, match=r"damaged|truncated"):
        decode(data[: len(data) * 6 // 10])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF"])
def test_an_animation_damaged_after_its_first_frame_is_read(kind):
    frames = [Image.fromarray(np.roll(smooth_image(), 5 * shift, 1)) for shift in range(3)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.array_equal(decode(data[:-200]).image, decode(data).image)


def test_lab_and_cmyk_tiffs_have_their_colours():
    image = Image.fromarray(smooth_image())
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    for file in (lab, image.convert("CMYK")):
        assert close(decode(encoded(file, "TIFF")).image, smooth_image(), 6)


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(900), "HEIC image.*convert it to JPEG or PNG"),
        (b"\xff\x0a" + bytes(50), "JPEG XL image.*convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypisom" + bytes(50), "video, not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PDF or PostScript document"),
        (b"<?xml version='1.0'?><svg xmlns='x'/>", "SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(50), "archive, not an image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "damaged: "),
        (b"II*\0" + bytes(50), "damaged: "),
    ],
)
def test_files_of_other_kinds_are_named(data, reason):
    with pytest.raises(UnreadableImage, match=reason):
        decode(data, name="cat.jpg")


def test_an_image_of_a_single_colour_is_noted():
    for image in (Image.new("RGB", (50, 40), "black"), Image.new("RGB", (1, 1), "red"), Image.new("I;16", (9, 9))):
        assert decode(encoded(image, "PNG")).note.endswith("single colour")
    dotted = Image.new("RGB", (50, 40))
    dotted.putpixel((49, 39), (1, 0, 0))
    assert decode(encoded(dotted, "PNG")).note == ""


def test_any_exception_of_a_reader_becomes_a_reason(monkeypatch):
    class Odd(Exception):
        pass

    def fail(*arguments, **settings):
        raise Odd("first line\x1b[31m\nsecond line")

    data = encoded(smooth_image(), "PNG")
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UnreadableImage, match=r"^damaged: Odd first line\[31m$"):
        decode(data)
    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(UnreadableImage, match="damaged: Odd"):
        from_pil(Image.new("P", (3, 3)))


def test_mutated_files_are_decoded_or_refused():
    generator = np.random.default_rng(0)
    files = [encoded(smooth_image(), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "PPM")]
    refused = 0
    for number in range(400):
        data = bytearray(files[number % len(files)])
        for position in generator.integers(0, len(data), 3).tolist():
            data[position] = int(generator.integers(256))
        try:
            image = decode(bytes(data), name="a.jpg").image
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        except UnreadableImage as error:
            refused += 1
            assert str(error).isprintable() and len(str(error)) < 260
    assert 20 < refused < 380


@pytest.mark.parametrize("name", ["x.NEF", "x.dng", "x.Cr2"])
def test_a_raw_image_is_refused_with_the_remedy_and_its_preview_is_not_read(name):
    file = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(file, "TIFF")
    with pytest.raises(UnreadableImage, match=r"raw image of a camera.*convert it to JPEG"):
        decode(file.getvalue(), name=name)
    assert decode(file.getvalue(), name="x.tif").format == "TIFF"


LOSSY = {
    "JPEG": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "WebP": ("WEBP", {}),
    "lossless WebP": ("WEBP", {"lossless": True}),
    "AVIF": ("AVIF", {}),
}


@pytest.mark.parametrize("kind", LOSSY)
def test_zero_bytes_in_place_of_the_end_are_lost_pixels(kind):
    file_format, options = LOSSY[kind]
    smooth = np.asarray(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)).resize((320, 240))
    )
    data = encoded(smooth, file_format, **options)
    for fraction in (0.3, 0.6, 0.9):
        start = data[: int(len(data) * fraction)]
        with pytest.raises(UnreadableImage, match=r"truncated|damaged"):
            decode(start.ljust(len(data), b"\0"))
        with pytest.raises(UnreadableImage, match=r"truncated|damaged"):
            decode(start.ljust(2 * len(data), b"\0"))
    assert np.array_equal(decode(data + bytes(5000)).image, decode(data).image)


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_an_image_mostly_of_one_colour_is_whole(kind):
    image = np.zeros((800, 1000, 3), np.uint8)
    image[:100] = np.random.default_rng(0).integers(0, 256, (100, 1000, 3))
    assert decode(encoded(image, kind, quality=10)).image.shape == image.shape
