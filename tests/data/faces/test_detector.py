"""Search over the pyramid with a network that responds to green; real faces are in the benchmarks."""

from __future__ import annotations

import dat_writer as dat
import numpy as np
import pytest
from PIL import Image

import twinned as tw
from twinned.data.faces import detector, models, photographs
from twinned.data.faces.dat_file import read_shape_predictor
from twinned.data.faces.detector import arrange, find_faces, suppress
from twinned.data.preprocessing import ImageSpec, read_image
from twinned.errors import ImageError, MissingExtra, SettingError

GREEN, GRAY = (0, 255, 0), (128, 128, 128)


class GreenSession:
    """Fake network: fraction of green in a window of 80 pixels, minus that around it, minus 0.8."""

    def __init__(self, bonus: float = 0.0) -> None:
        self.bonus = bonus  # network that finds more candidates

    def run(self, _: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        red, green, blue = feed["planes"][0]
        shown = (green - np.maximum(red, blue) > 120).astype(float)
        total = np.pad(shown.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        height, width = shown.shape
        rows, columns = np.meshgrid(range(14, height - 14, 8), range(14, width - 14, 8), indexing="ij")

        def within(half: int) -> np.ndarray:
            top, bottom = (rows - half).clip(0), (rows + half).clip(0, height)
            left, right = (columns - half).clip(0), (columns + half).clip(0, width)
            return total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]

        scores = (2 * within(40) - within(52)) / 6400 - 0.8 + self.bonus
        return [scores[None, None].astype(np.float32)]


class Resize:
    """Nearest pixels; the first and the last stay in place."""

    def run(self, _: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        planes, (height, width) = feed["planes"], feed["size"][2:]
        rows, columns = (
            np.rint(np.linspace(0, old - 1, new)).astype(int)
            for old, new in zip(planes.shape[2:], (height, width), strict=True)
        )
        return [planes[:, :, rows[:, None], columns]]


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = read_shape_predictor(dat.predictor(), "x")
    predictor = predictor._replace(leaves=0 * predictor.leaves)
    found = models.Finder(Resize(), GreenSession(0.3), GreenSession(), (0, 0, 0), 8, 14, 105, predictor)
    monkeypatch.setattr(models, "finder", lambda: found)
    monkeypatch.setattr(detector, "_LEAST", 0)
    monkeypatch.setattr(photographs, "_noted", set())


def picture(size: tuple[int, int], *squares: tuple[int, int, int]) -> Image.Image:
    """Gray image with green squares: left, top, side."""
    image = Image.new("RGB", size, GRAY)
    for left, top, side in squares:
        image.paste(GREEN, (left, top, left + side, top + side))
    return image


def overlap(box: tuple[int, ...], square: tuple[int, int, int]) -> float:
    left, top, side = square
    width = min(box[2], left + side) - max(box[0], left)
    height = min(box[3], top + side) - max(box[1], top)
    common = max(0, width) * max(0, height)
    return common / ((box[2] - box[0]) * (box[3] - box[1]) + side**2 - common)


def test_arranged_levels_do_not_overlap() -> None:
    for width, height in ((640, 480), (96, 96), (50, 300), (300, 20), (8, 8)):
        sizes, places = arrange(width, height)
        assert sizes[0] == (width, height)
        assert places[0] == (11, 11)
        taken = np.zeros((4 * height + 4 * width + 100, width + 22), int)
        for (wide, high), (left, top) in zip(sizes, places, strict=True):
            assert left >= 11
            assert left + wide <= width + 11
            taken[top : top + high, left : left + wide] += 1
        assert taken.max() == 1


@pytest.mark.usefixtures("finder")
def test_detected_faces_are_sorted_by_size() -> None:
    squares = [(300, 60, 170), (40, 40, 90), (60, 250, 120)]
    found = find_faces(picture((560, 440), *squares), 80)
    assert len(found) == 3
    for face, square in zip(found, sorted(squares, key=lambda s: -s[2]), strict=True):
        assert overlap(face.box, square) > 0.6
        assert face.landmarks.shape == (5, 2)
    assert [f.size for f in found] == sorted((f.size for f in found), reverse=True)


@pytest.mark.usefixtures("finder")
@pytest.mark.parametrize("faces", [1, 12])
def test_levels_are_searched_whole_if_there_are_many_candidates(
    monkeypatch: pytest.MonkeyPatch, faces: int
) -> None:
    squares = [(40 + 150 * column, 40 + 150 * row, 90) for row in range(3) for column in range(4)][:faces]
    monkeypatch.setattr(detector, "_LEVELS", 6)  # about 10 candidates
    whole = []
    search = detector._Pyramid.search
    monkeypatch.setattr(detector._Pyramid, "search", lambda *args: whole.append(args) or search(*args))
    found = find_faces(picture((640, 480), *squares), 80)
    assert len(found) == faces
    for square in squares:
        assert max(overlap(face.box, square) for face in found) > 0.6
    assert bool(whole) == (faces == 12)


@pytest.mark.usefixtures("finder")
def test_large_images_are_searched_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "_PART_PIXELS", 100_000)
    monkeypatch.setattr(detector, "_PART", 320)
    squares = [(290, 100, 90), (30, 250, 85), (320, 290, 130)]
    found = find_faces(picture((560, 440), *squares), 80)
    assert len(found) == 3
    for square in squares:
        assert max(overlap(face.box, square) for face in found) > 0.6


@pytest.mark.usefixtures("finder")
def test_small_faces_are_searched_if_no_large_one_is_found() -> None:
    small, large = (20, 20, 50), (150, 100, 110)
    assert len(tw.faces.detect(picture((320, 240), small))) == 1
    both = picture((320, 240), small, large)
    assert len(tw.faces.detect(both)) == 1
    assert len(tw.faces.detect(both, min_face=40)) == 2
    assert tw.faces.detect(picture((320, 240))) == []


@pytest.mark.usefixtures("finder")
def test_rotated_and_dark_photographs(tmp_path) -> None:
    square = (40, 100, 100)
    upright = picture((200, 300), square)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert overlap(tw.faces.detect(tmp_path / "turned.png")[0].box, square) > 0.6
    dark = upright.point(lambda value: value // 8)
    assert overlap(tw.faces.detect(dark)[0].box, square) > 0.6


def test_suppression_keeps_the_best_of_overlapping_boxes() -> None:
    boxes = np.array(
        [(0, 0, 10, 10, 0.5), (1, 1, 11, 11, 0.9), (6, 0, 16, 10, 0.3), (30, 0, 40, 10, 0.1)], float
    )
    assert suppress(boxes)[:, 4].tolist() == [0.9, 0.3, 0.1]


@pytest.mark.usefixtures("finder")
def test_preprocessing_crops_the_largest_face(caplog: pytest.LogCaptureFixture) -> None:
    spec = ImageSpec(height=60, width=60, faces="largest")
    photograph = picture((400, 300), (20, 20, 60), (150, 90, 150))
    with caplog.at_level("INFO", "twinned"):
        pixels = read_image(photograph, spec)
        read_image(photograph, spec)
    assert pixels.shape == (60, 60, 3)
    # The fake predictor returns its mean shape, so only the position is checked.
    assert (pixels == GREEN).all(-1).mean() > 0.3
    assert sum("faces were found" in record.getMessage() for record in caplog.records) <= 1
    assert read_image(photograph, spec.model_copy(update={"channels": 1})).shape == (60, 60, 1)


@pytest.mark.usefixtures("finder")
def test_images_without_a_face(caplog: pytest.LogCaptureFixture) -> None:
    spec = ImageSpec(height=60, width=60, faces="largest")
    with pytest.raises(ImageError, match="no face was found"):
        read_image(picture((400, 300)), spec)
    with caplog.at_level("INFO", "twinned"):
        assert read_image(picture((96, 96)), spec).shape == (60, 60, 3)
        read_image(picture((96, 96)), spec)
    assert [record.code for record in caplog.records] == ["no-face"]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (4, 8), (20, 20), (30, 4000)])
def test_images_of_a_few_pixels_have_no_face(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    assert tw.faces.detect(image) == []
    assert tw.faces.detect(image, min_face=2000) == []
    assert len(photographs.search(image)) == (size == (20, 20))


def test_wrong_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="min_face"):
        tw.faces.detect(picture((50, 50)), min_face=3)
    face = detector.Face((0, 0, 9, 9), 1.0, np.zeros((5, 2)))
    with pytest.raises(SettingError, match="size"):
        tw.faces.align(picture((50, 50)), face, size=0)
    monkeypatch.setattr(models, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"twinned\[faces\]"):
        models.read_source(models.DETECTOR)
