"""Features of one image file, independent of its content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from twinned.data.checks.file_features import FACTS, gather, packing
from twinned.data.preprocessing import ImageSpec


def picture(seed: int = 0, side: int = 40) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def fact(source: Any, name: str, **options: Any) -> float:
    return float(gather([source], **options)[name][0])


def saved(path: Path, pixels: NDArray[Any], **options: Any) -> str:
    Image.fromarray(pixels).save(path, **options)
    return str(path)


def test_headers_are_read_without_decoding(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", picture(), quality=50, dpi=(300, 300))
    quick, whole = gather([path], decode=False), gather([path])
    assert quick.thumbnails is None
    assert (quick["width"][0], quick["height"][0], quick["resolution"][0]) == (40, 40, 300)
    assert quick["file size"][0] == Path(path).stat().st_size
    assert quick.mode.tolist() == ["RGB"]
    assert np.isnan(quick["background"][0])
    np.testing.assert_array_equal(whole.values[:, :8], quick.values[:, :8])
    assert whole.thumbnails is not None
    assert whole.thumbnails.shape == (1, 16, 16)


def test_compression_is_read_from_jpeg_tables(tmp_path: Path) -> None:
    coarse = [fact(saved(tmp_path / f"{i}.jpg", picture(i), quality=30), "compression") for i in range(3)]
    fine = [fact(saved(tmp_path / f"{i}.jpg", picture(i), quality=90), "compression") for i in range(3)]
    assert len(set(coarse)) == len(set(fine)) == 1
    assert coarse[0] > fine[0] > 0
    assert fact(saved(tmp_path / "a.png", picture()), "compression") == 0


def test_format_and_mode_are_encoded_as_numbers(tmp_path: Path) -> None:
    grey = picture()[:, :, 0]
    facts = gather(
        [
            saved(tmp_path / name, pixels)
            for name, pixels in (("a.png", grey), ("b.png", picture()), ("c.bmp", grey))
        ]
    )
    assert facts["mode"][0] == facts["mode"][2] != facts["mode"][1]
    assert facts["format"][0] == facts["format"][1] != facts["format"][2]
    assert facts.mode.tolist() == ["L", "RGB", "L"]


def test_metadata_is_its_size_in_bytes(tmp_path: Path) -> None:
    plain = fact(saved(tmp_path / "a.jpg", picture()), "metadata")
    assert fact(saved(tmp_path / "b.jpg", picture(), comment=b"x" * 500), "metadata") >= plain + 500


def test_animations_are_detected(tmp_path: Path) -> None:
    first, second = (Image.fromarray(picture(i)) for i in range(2))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    second.save(tmp_path / "b.gif")
    assert gather([str(tmp_path / "a.gif"), str(tmp_path / "b.gif")]).animated.tolist() == [True, False]


@pytest.mark.parametrize("level", [0, 128, 240])
def test_background_is_measured_on_uniform_paper(level: int) -> None:
    page = np.random.default_rng(0).integers(-3, 4, (60, 90)) + level
    page[20:40, 20:70] = 100
    assert abs(fact(page.clip(0, 255).astype(np.uint8), "background") - level) <= 2
    assert np.isnan(fact(picture(), "background"))


def test_frame_excludes_paper_margins() -> None:
    inside = picture(side=80)
    framed = np.zeros((100, 100, 3), np.uint8)
    framed[10:90, 10:90] = inside.clip(30, 255)
    assert fact(framed, "frame") == pytest.approx(0.1)
    assert fact(inside, "frame") == 0
    glyph = np.full((50, 50), 255, np.uint8)
    glyph[20:30, 10:40] = 0  # the white paper around a glyph is content, not a frame
    assert fact(glyph, "frame") == 0


def test_color_is_measured_from_the_pixels() -> None:
    grey = np.repeat(picture()[:, :, :1], 3, axis=2)
    assert fact(picture(), "color") == 1
    assert fact(grey, "color") == 0
    assert fact(grey[:, :, 0], "color") == 0


def test_packing_is_independent_of_the_content(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    flat = np.full((40, 40, 3), 90, np.uint8)
    for name, options in (("a.jpg", {"quality": 60}), ("a.jpg", {"quality": 95}), ("a.png", {})):
        levels = [packing(saved(tmp_path / name, pixels, **options)) for pixels in (noise, picture())]
        assert np.ptp(levels) < 0.4
    assert packing(saved(tmp_path / "a.png", flat, compress_level=0)) > 3
    padded = Path(saved(tmp_path / "b.jpg", picture(), quality=60))
    plain = packing(padded)
    padded.write_bytes(padded.read_bytes() + bytes(4000))
    assert packing(padded) > plain + 1
    assert packing(flat) == packing(saved(tmp_path / "a.bmp", flat)) == 0


def test_unreadable_images_have_errors(tmp_path: Path) -> None:
    good = saved(tmp_path / "good.png", picture())
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(good).read_bytes()[:400])
    sources = [str(tmp_path / "gone.png"), good, str(cut), np.zeros((8, 8, 2), np.uint8)]
    facts = gather(sources)
    assert list(facts.errors) == [0, 2, 3]
    assert facts.readable.tolist() == [1]
    assert facts.at(facts.readable).values.shape == (1, len(FACTS))
    assert list(gather(sources, decode=False).errors) == [0, 3]  # damage after the header is not detected


def test_every_kind_of_source(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", picture())
    facts = gather([path, Path(path), Path(path).read_bytes(), Image.open(path), picture()])
    assert not facts.errors
    assert set(facts["width"]) == {40}
    assert facts.thumbnails is not None
    assert np.ptp(facts.thumbnails, axis=0).max() == 0


def test_thumbnails_follow_the_spec() -> None:
    page = np.full((60, 90), 240, np.uint8)
    page[20:40, 20:70] = 60
    ink = ImageSpec(height=32, width=64, channels=1, ink="binary")
    seen = gather([page, (page + 13).astype(np.uint8)], spec=ink).thumbnails
    assert seen is not None
    np.testing.assert_array_equal(seen[0], seen[1])
    assert gather([page], spec=ImageSpec(height=32, width=64)).thumbnails is not None


def test_no_images() -> None:
    assert len(gather([])) == 0
