"""The whole story on real data that scikit-learn ships: 1,797 handwritten digits of 8x8 pixels."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import data
from ..data.catalog.convert import KNOWN_DIGITS as KNOWN
from ..data.datasets import ImageSet
from ..data.readers import load_images
from ..errors import SettingError
from ..training.api import train
from ..training.recipes import get

_PER_DIGIT, _STEPS = 120, 200


def digits(folder: Path) -> ImageSet:
    """Write scikit-learn's digits as PNG files, one folder a digit, and read them as anybody's images."""
    images = data.load_digits()
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for place in np.flatnonzero(images.labels == str(digit))[:_PER_DIGIT]:
            Image.fromarray(np.asarray(images.images[place])).save(folder / str(digit) / f"{place:04d}.png")
    return load_images(folder)


def run(
    output: Path, *, seed: int = 0, progress: bool = True, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Train on seven digits; verify, classify and search the three that training never saw.

    Args:
        output: Folder for the model, a gallery and the pictures; an old demo there is replaced.
        seed: Of everything.
        progress: Show bars.
        say: Called with each sentence of the story.

    Returns:
        The figures.

    Raises:
        SettingError: If the folder holds something that is not a demo.
    """
    from .. import visualization

    began = time.monotonic()
    if output.is_file():
        raise SettingError(f"{output}: is a file; choose a folder with -o")
    if output.exists():
        if any(output.iterdir()) and not (output / "digits.twin").exists():
            raise SettingError(f"{output}: exists and is no demo; choose another folder with -o")
        shutil.rmtree(output)
    images = digits(output / "digits")
    known = images.with_classes(KNOWN)
    novel = images.with_classes([c for c in images.classes if c not in KNOWN])
    say(
        f"{len(images)} digits written by hand. Training sees {', '.join(KNOWN)};"
        f" never {', '.join(novel.classes)}."
    )

    settings = get("glyph").change(
        {"height": 32, "width": 32, "classes_per_batch": 14, "images_per_class": 8}
        | {"minutes": None, "steps": _STEPS, "temperature": 0.1}
    )
    model = train(known, recipe=settings, seed=seed, progress=progress, output=output / "digits.twin")
    say(f"Trained in {time.monotonic() - began:.0f} s: {output / 'digits.twin'}")

    found = model.evaluate(novel, ways=3, shots=1, seed=seed, progress=progress)
    say("\nDigits never seen in training:\n" + found.text())
    names = {label: list(novel.with_classes([label]).images) for label in novel.classes}
    left, right = names[novel.classes[0]][:2], names[novel.classes[1]][:2]
    for a, b in ((left[0], left[1]), (left[0], right[0])):
        verdict = model.verify(a, b)
        say(
            f"verify {Path(str(a)).relative_to(output)} {Path(str(b)).relative_to(output)}:"
            f" {'same' if verdict.same else 'different'}, probability {verdict.probability:.2f}"
        )
    queries = {label: files[-1] for label, files in names.items()}
    guesses = model.classify(list(queries.values()), {label: files[:1] for label, files in names.items()})
    for label, guess in zip(queries, guesses, strict=True):
        say(f"one example each, which digit is this {label}? {guess.label or 'unknown'}")

    with model.gallery(output / "digits.gallery") as gallery:
        enrolled = [im for files in names.values() for im in files[:40]]
        gallery.add(
            enrolled, [label for label, files in names.items() for _ in files[:40]], progress=progress
        )
        probe = names[novel.classes[-1]][-1]
        hits = gallery.search(probe, k=5)
        say(
            f"search {gallery.count()} images for a {novel.classes[-1]}:"
            f" {', '.join(str(h.label) for h in hits)}"
        )

    some = np.sort(np.random.default_rng(seed).permutation(len(novel))[:300])
    pictures = visualization.story(model, novel.subset(some), output, seed=seed)
    for picture in pictures:
        say(f"picture: {picture}")
    say(f"\nThe whole story took {time.monotonic() - began:.0f} s. It lies in {output.resolve()}")
    return {
        "folder": str(output),
        "seconds": round(time.monotonic() - began, 1),
        "figures": found.to_json(),
        "pictures": [str(p) for p in pictures],
    }
