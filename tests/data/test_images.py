"""Opening images: unusual files are read correctly or refused with a clear message."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image

from twinned.data import images
from twinned.data.images import as_many, open_image, pixels_sha256, source_name
from twinned.data.preprocessing import ImageSpec, read_image
from twinned.errors import DataError, ImageError

GREY = ImageSpec(height=16, width=24, channels=1)
COLOUR = ImageSpec(height=16, width=24, channels=3)


def picture(height: int = 16, width: int = 24, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth color image: dark at the top left, light at the bottom right."""
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    rng = np.random.default_rng(seed)
    levels = np.stack([a * down + b * across for a, b in rng.uniform(60, 120, (3, 2))], axis=-1)
    return levels.astype(np.uint8)


def saved(path: Path, pixels: NDArray[Any] | Image.Image, **options: Any) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


# Unusable files


def test_unusable_file_error_has_source_and_reason(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.png", picture(64, 64)).read_bytes()
    jpeg = saved(tmp_path / "whole.jpg", picture(64, 64)).read_bytes()
    contents = {
        "empty.png": (b"", "is empty"),
        "text.png": (b"not an image at all", "is not a supported image"),
        "truncated.png": (whole[: len(whole) // 2], "truncated"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cut-in-header.png": (whole[:20], "truncated"),
        "flipped.png": (whole[:60] + bytes(60) + whole[120:], "damaged"),
    }
    for name, (content, says) in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ImageError, match=says) as caught:
            read_image(path, GREY)
        assert caught.value.source == str(path)
        assert str(path) not in caught.value.reason
        assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "missing.png", GREY)
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path, GREY)


def test_formats_decoded_by_external_programs_are_refused(tmp_path: Path) -> None:
    page = saved(tmp_path / "page.eps", picture(32, 32))
    page.rename(tmp_path / "page.png")
    with pytest.raises(ImageError, match="is not a supported image"):
        read_image(tmp_path / "page.png", GREY)


def test_named_bytes_are_reported_by_name() -> None:
    class Upload(bytes):
        name = "photo.jpg"

    with pytest.raises(ImageError, match=r"photo.jpg: is not a supported image"):
        read_image(Upload(b"text"), GREY)


def test_broken_links_and_pipes_are_image_errors(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")  # opening a pipe blocks until a writer opens it
    for name in ("gone.png", "loop.png", "pipe.png"):
        with pytest.raises(ImageError):
            open_image(tmp_path / name)


def huge_png(width: int, height: int) -> bytes:
    """Build a small PNG that declares a very large size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "side", [10_000, 16_000, 60_000]
)  # Pillow warns of the first and refuses the last two
def test_decompression_bomb_is_refused_before_decoding(side: int, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(huge_png(side, side))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"limit (is|of) 89,478,485"):
            read_image(path, GREY)
    with pytest.raises(ImageError, match="pixels"):
        read_image(path.read_bytes(), GREY)


def test_file_above_the_size_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    with pytest.raises(ImageError, match="268,435,457 bytes; the limit is 268,435,456"):
        read_image(path, GREY)


@given(st.binary(max_size=200))
def test_random_bytes_are_an_image_or_an_image_error(content: bytes) -> None:
    try:
        read_image(content, GREY)
    except ImageError as error:
        assert error.source == "image bytes"  # noqa: PT017 - either outcome is right


@given(st.data())
def test_damaged_file_is_an_image_or_an_image_error(data: st.DataObject) -> None:
    """Change random bytes of a file; the only error is an ImageError."""
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "TGA", "ICO"]))
    buffer = io.BytesIO()
    Image.fromarray(picture(20, 20)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    try:
        assert read_image(bytes(content), COLOUR).shape == (16, 24, 3)
    except ImageError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


# Unusual files that are supported


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "green", "blue")]
    for name in ("moving.gif", "moving.webp", "moving.png", "pages.tif"):
        options = {"lossless": True} if name.endswith("webp") else {}
        path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], **options)
        assert read_image(path, COLOUR)[8, 12].tolist() == [255, 0, 0]


def test_cmyk_is_converted(tmp_path: Path) -> None:
    for suffix in ("jpg", "tif"):
        path = saved(tmp_path / f"print.{suffix}", Image.new("CMYK", (24, 16), (0, 255, 255, 0)))
        red, green, blue = (int(v) for v in read_image(path, COLOUR)[8, 12])
        assert red > 230
        assert max(green, blue) < 60


def test_16_bit_images_are_scaled_to_8_bits(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 16 * 24).reshape(16, 24).astype(np.uint16)
    expected = ramp >> 8
    for suffix in ("png", "tif"):
        pixels = read_image(saved(tmp_path / f"deep.{suffix}", ramp), GREY)
        np.testing.assert_array_equal(pixels[:, :, 0], expected)
    np.testing.assert_array_equal(read_image(ramp, GREY)[:, :, 0], expected)  # the same as an array
    np.testing.assert_array_equal(read_image(ramp.astype(">u2"), GREY)[:, :, 0], expected)
    wide = Image.fromarray(ramp.astype(np.int32))  # mode I
    np.testing.assert_array_equal(read_image(wide, GREY)[:, :, 0], expected)


def test_dark_16_bit_image_stays_dark(tmp_path: Path) -> None:
    dark = np.full((16, 24), 200, np.uint16)  # of 65535: nearly black
    assert read_image(saved(tmp_path / "dark.png", dark), GREY).max() == 0


def test_float_tiff(tmp_path: Path) -> None:
    grey = np.linspace(0, 255, 16 * 24).reshape(16, 24).astype(np.uint8)
    for scale in (1 / 255, 1.0, 256.0):
        path = saved(tmp_path / "float.tif", (grey * scale).astype(np.float32))
        assert np.abs(read_image(path, GREY)[:, :, 0].astype(int) - grey).max() <= 1
    gaps = (grey / 255).astype(np.float32)
    gaps[0, 0], gaps[0, 1], gaps[0, 2] = np.nan, np.inf, -np.inf
    pixels = read_image(saved(tmp_path / "gaps.tif", gaps), GREY)[:, :, 0]
    assert pixels[0, :3].tolist() == [0, 255, 0]
    assert np.abs(pixels[1:].astype(int) - grey[1:]).max() <= 1


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    upright = Image.fromarray(picture(32, 48))
    turned = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    for orientation, back in turned.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        for suffix, near in (("jpg", 6), ("png", 0), ("tif", 0), ("webp", 6)):
            path = saved(tmp_path / f"turned.{suffix}", upright.transpose(back), exif=exif, quality=95)
            opened = open_image(path)
            assert opened.size == (48, 32)
            assert np.abs(np.asarray(opened, int) - np.asarray(upright, int)).max() <= near
            with Image.open(path) as lazy:  # also as a Pillow image
                np.testing.assert_array_equal(np.asarray(open_image(lazy)), np.asarray(opened))


def test_broken_exif_is_ignored(tmp_path: Path) -> None:
    for exif in (
        b"Exif\x00\x00garbage",
        b"Exif\x00\x00II*\x00\xff\xff\xff\xff",
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff",
    ):
        path = saved(tmp_path / "odd.jpg", picture(), exif=exif)
        assert read_image(path, GREY).shape == (16, 24, 1)


def transparent(mode: str) -> tuple[Image.Image, dict[str, Any]]:
    """Black image with a transparent left half."""
    clear = Image.new("RGBA", (24, 16), (0, 0, 0, 255))
    clear.paste((0, 0, 0, 0), (0, 0, 12, 16))
    if mode == "P":
        paletted = Image.new("P", (24, 16), 1)
        paletted.putpalette([255, 0, 0, 0, 0, 0])
        paletted.paste(0, (0, 0, 12, 16))
        return paletted, {"transparency": 0}
    if mode in ("L", "RGB"):  # one color is transparent
        key: Any = 0 if mode == "L" else (0, 0, 0)
        keyed = Image.new(mode, (24, 16), key)
        keyed.paste(1 if mode == "L" else (1, 1, 1), (12, 0, 24, 16))
        return keyed, {"transparency": key}
    return clear.convert(mode), {}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_transparency_is_composited_on_white(mode: str, spec: ImageSpec, tmp_path: Path) -> None:
    image, options = transparent(mode)
    pixels = read_image(saved(tmp_path / "clear.png", image, **options), spec)
    assert (pixels[:, :12] == 255).all()
    assert (pixels[:, 12:] <= 1).all()


def test_palette_and_1_bit_images(tmp_path: Path) -> None:
    bits = np.arange(16 * 24).reshape(16, 24) % 3 == 0
    for suffix in ("png", "bmp", "tif", "gif", "pbm"):
        path = saved(tmp_path / f"bits.{suffix}", Image.fromarray(bits))
        np.testing.assert_array_equal(read_image(path, GREY)[:, :, 0], bits * 255)
    palette = Image.fromarray(picture()).quantize(16)
    pixels = read_image(saved(tmp_path / "palette.png", palette), COLOUR)
    np.testing.assert_array_equal(pixels, np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "webp", "ppm", "tga", "avif"])
def test_common_formats(suffix: str, tmp_path: Path) -> None:
    path = saved(tmp_path / f"a.{suffix}", picture())
    assert path.suffix in images.SUFFIXES
    assert np.abs(read_image(path, COLOUR).astype(int) - picture()).max() < 40


def test_large_jpeg_is_decoded_at_reduced_size(tmp_path: Path) -> None:
    path = saved(tmp_path / "photo.jpg", picture(1600, 2400), quality=95)
    assert open_image(path).size == (2400, 1600)
    small = open_image(path, at_least=(48, 32))
    assert small.width < 600
    assert small.width >= 48
    assert small.height >= 32
    drafted = read_image(path, COLOUR).astype(int)
    whole = np.asarray(open_image(path).resize((24, 16), Image.Resampling.BILINEAR), int)
    assert np.abs(drafted - whole).max() <= 4


def test_rotated_large_jpeg_keeps_enough_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "side.jpg", picture(400, 3200), exif=exif)  # upright: 400 wide, 3200 high
    small = open_image(path, at_least=(200, 1600))
    assert small.size == (200, 1600)


# Arrays and other sources


def test_arrays_of_every_dtype_give_the_same_image() -> None:
    grey = picture()[:, :, 0]
    same: list[NDArray[Any]] = [
        grey,
        grey[:, :, None],
        grey[::-1][::-1],  # not contiguous
        grey.astype(np.uint16) << 8,
        (grey / 255).astype(np.float32),
        grey / 255,
        np.repeat(grey[:, :, None], 3, axis=2),
        np.dstack([grey, grey, grey, np.full_like(grey, 255)]),
    ]
    for array in same:
        np.testing.assert_array_equal(read_image(array, GREY)[:, :, 0], grey)
    half = (grey / 255).astype(np.float16)
    assert np.abs(read_image(half, GREY)[:, :, 0].astype(int) - grey).max() <= 1
    np.testing.assert_array_equal(read_image(grey > 100, GREY)[:, :, 0], (grey > 100) * 255)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((4, 4), np.int64), "int64"),
        (np.full((4, 4), 255.0), r"255.*\[0, 1\]"),
        (np.full((4, 4), np.nan), r"NaN.*\[0, 1\]"),
        (np.full((4, 4), -0.1), r"-0.1.*\[0, 1\]"),
        (np.zeros((8, 8, 2), np.uint8), r"\(8, 8, 2\), without an axis of 1, 3 or 4 channels"),
        (np.zeros((3, 8, 3), np.uint8), r"\(3, 8, 3\): the channels may be first or last"),
        (np.zeros(4, np.uint8), r"\(4,\); expected \(height, width\)"),
        (np.zeros((0, 4), np.uint8), r"\(0, 4\), which is empty"),
        (np.full((4, 4), 200), "int64 with values from 200 to 200.*astype"),
        (np.full((4, 4), -1.5), "before they are normalized"),
        (np.zeros((4, 4), np.complex64), "complex64"),
        (np.array([["a"]]), "<U1"),
    ],
)
def test_invalid_array_error_describes_it(array: NDArray[Any], says: str) -> None:
    with pytest.raises(ImageError, match=says):
        read_image(array, GREY)


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_any_small_image_is_read(array: NDArray[np.uint8]) -> None:
    for fit in ("stretch", "pad", "crop"):
        for ink in ("none", "binary", "grey"):
            spec = ImageSpec(height=9, width=13, channels=1, fit=fit, ink=ink)
            pixels = read_image(array, spec)
            assert pixels.shape == (9, 13, 1)
            assert pixels.dtype == np.uint8


def test_every_kind_of_source_gives_the_same_pixels(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", picture())
    sources = [
        path,
        str(path),
        path.read_bytes(),
        bytearray(path.read_bytes()),
        memoryview(path.read_bytes()),
    ]
    for source in [*sources, Image.open(path), picture()]:
        np.testing.assert_array_equal(read_image(source, COLOUR), picture())
    with pytest.raises(ImageError, match=r"^object of type int: is not an image; pass a path"):
        read_image(7, COLOUR)  # type: ignore[arg-type]


def test_pillow_image_is_not_modified() -> None:
    image = Image.fromarray(picture())
    read_image(image, GREY)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), picture())


def test_gray_and_color_are_converted() -> None:
    grey = picture()[:, :, 0]
    np.testing.assert_array_equal(read_image(grey, COLOUR), np.repeat(grey[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(
        read_image(picture(), GREY)[:, :, 0], np.asarray(Image.fromarray(picture()).convert("L"))
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_masked_array_is_refused(dtype: type) -> None:
    for mask in (False, picture() > 100):
        with pytest.raises(ImageError, match=r"is a masked array; .*\.filled\(value\)"):
            read_image(np.ma.masked_array((picture() / 255).astype(dtype), mask), COLOUR)


class Tensor:
    """Tensor of another library on a device that NumPy cannot read."""

    name = None
    dtype = "float32"
    shape = (3, 8, 8)

    def __array__(self) -> NDArray[Any]:
        raise TypeError("it is on the device")


def test_unsupported_type_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=r"^Tensor of shape \(3, 8, 8\): .*it is on the device\); pass numpy\.asarray"
    ):
        read_image(Tensor(), COLOUR)
    with saved(tmp_path / "a.png", picture()).open("rb") as file:
        (only,) = as_many(file)
        with pytest.raises(ImageError, match=r"a\.png: is an open file; pass its path"):
            read_image(only, COLOUR)
    with os.fdopen(os.open(tmp_path / "a.png", os.O_RDONLY), "rb") as file:  # its name is a number
        assert source_name(file) == "object of type BufferedReader"
    for array in (np.array("a.png"), np.array([["a.png"]], object)):
        with pytest.raises(ImageError, match="pass paths as a list or a one-dimensional array"):
            read_image(array, COLOUR)


def test_as_many_accepts_one_image_or_several(tmp_path: Path) -> None:
    data = saved(tmp_path / "a.png", picture()).read_bytes()
    singles = (
        "a.png",
        Path("a.png"),
        data,
        bytearray(data),
        memoryview(data),
        Image.new("L", (8, 8)),
        picture(),
    )
    for one in (*singles, np.zeros(3), np.zeros((8, 8))):
        (only,) = as_many(one)
        assert only is one
    paths = ["a.png", "b.png"]
    for several in (paths, np.array(paths), np.array(paths, object), np.array([Path(p) for p in paths])):
        assert [str(path) for path in as_many(several)] == paths
    assert len(as_many(np.zeros((2, 8, 8, 3)))) == 2
    assert [one.shape for one in as_many(np.zeros((2, 3, 8, 9)))] == [(8, 9, 3)] * 2
    assert [one.shape for one in as_many(np.zeros((5, 8, 9)))] == [(8, 9)] * 5
    assert len(as_many(np.zeros((1, 8, 9)))) == 1
    with pytest.raises(DataError, match=r"one image .* or 3 gray images; pass images\[None\]"):
        as_many(np.zeros((3, 8, 9)))
    generator = iter(paths)
    assert as_many(generator) is generator


@pytest.mark.skipif(os.sep != "/", reason="they are paths there")
@pytest.mark.parametrize("name", ["data/C:\\data\\0.png", "..\\d\\0.png", "data/C:/data/0.png"])
def test_windows_path_is_reported(name: str) -> None:
    with pytest.raises(ImageError, match=r"no such file \(this is a Windows path: use the path"):
        read_image(name, COLOUR)
    with pytest.raises(ImageError, match=r"no such file$"):
        read_image("a/b:c.png", COLOUR)


def test_web_address_is_refused() -> None:
    for name in ("https://example.com/a.png", "data/https:/example.com/a.png"):
        with pytest.raises(
            ImageError, match=r"web addresses are not supported: download https://example.com/a.png"
        ):
            read_image(name, COLOUR)


def test_source_names() -> None:
    assert source_name("a/b.png") == "a/b.png"
    assert source_name(Path("a/b.png")) == "a/b.png"
    assert source_name(np.zeros((4, 5))) == "array of shape (4, 5)"
    assert source_name(Image.new("L", (5, 4))) == "5x4 image"
    assert source_name(b"..") == "image bytes"


def test_pixels_sha256_depends_on_pixels_and_shape(tmp_path: Path) -> None:
    a = read_image(saved(tmp_path / "a.png", picture()), COLOUR)
    b = read_image(saved(tmp_path / "b.bmp", picture()), COLOUR)
    assert pixels_sha256(a) == pixels_sha256(b)
    assert pixels_sha256(a) != pixels_sha256(a.reshape(24, 16, 3))
    assert pixels_sha256(a) != pixels_sha256(a[:, ::-1])
    assert pixels_sha256(a[:, ::-1]) == pixels_sha256(a[:, ::-1].copy())
