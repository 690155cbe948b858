"""Searches of photographs: each file once, and samples until the answer is known."""

from __future__ import annotations

import os

import pytest

from twinned.data.faces import photographs
from twinned.data.preprocessing import ImageSpec, read_image


def test_an_unchanged_file_is_searched_once(searched, painted_faces, tmp_path):
    file, spec = tmp_path / "a.png", ImageSpec(height=32, width=32, faces="largest")
    painted_faces(("red", 20, 30, 120)).save(file)
    first = read_image(file, spec)
    assert (read_image(str(file), spec.model_copy(update={"height": 16}))[0] == first[0]).all()
    assert len(searched) == 1
    read_image(file, spec.with_faces(min_face=60))
    assert len(searched) == 2
    painted_faces(("red", 50, 30, 90)).save(file)
    os.utime(file, ns=(1, 1))
    read_image(file, spec)
    assert len(searched) == 3


@pytest.mark.parametrize(("faces", "least", "expected"), [(40, 0.5, 32), (0, 0.5, 17), (0, 0.8, 7)])
def test_a_sample_is_searched_until_the_share_is_out_of_reach(
    searched, painted_faces, faces, least, expected
):
    images = [painted_faces(("red", 20, 30, 120))] * faces + [painted_faces()] * (40 - faces)
    assert photographs.share_with_faces(images, least=least) == (1 if faces else 0)
    assert len(searched) == expected
