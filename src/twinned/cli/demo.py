"""Command demo: train, verify and search on 1,797 handwritten digits that scikit-learn ships."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SettingError
from .options import Json, Quiet, Seed, print_result

if TYPE_CHECKING:
    from ..data.datasets import ImageSet

app = typer.Typer()

_PER_DIGIT, _STEPS = 120, 200


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for model and pictures.")] = Path(
        "demo"
    ),
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train, verify, classify and search handwritten digits that scikit-learn ships."""
    result = run(
        output, seed=seed, progress=not quiet, report=(lambda sentence: None) if json or quiet else print
    )
    if json:
        print_result(result, as_json=True, text="")


def digits(folder: Path) -> ImageSet:
    """Write the digits as PNG files, one folder per digit, and read them."""
    import numpy as np
    from PIL import Image

    from .. import data
    from ..data.readers import load_images

    images = data.load_digits()
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for place in np.flatnonzero(images.labels == str(digit))[:_PER_DIGIT]:
            Image.fromarray(np.asarray(images.images[place])).save(folder / str(digit) / f"{place:04d}.png")
    return load_images(folder)


def run(
    output: Path, *, seed: int = 0, progress: bool = True, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Train on seven digits; verify, classify and search the other three.

    Args:
        output: Folder for the model, a gallery and the pictures; an earlier demo in it is replaced.
        seed: Seed of all random numbers.
        progress: Show progress bars.
        report: Function that prints a line.

    Returns:
        Figures of the evaluation, and the pictures' paths.

    Raises:
        SettingError: If the folder holds something other than a demo.
    """
    import numpy as np

    from .. import visualization
    from ..data.catalog.convert import KNOWN_DIGITS as KNOWN
    from ..training.api import train
    from ..training.recipes import get

    began = time.monotonic()
    if output.is_file():
        raise SettingError(f"{output}: is a file; choose a folder with -o")
    if output.exists():
        if any(output.iterdir()) and not (output / "digits.twin").exists():
            raise SettingError(f"{output}: exists and holds no demo; choose another folder with -o")
        shutil.rmtree(output)
    images = digits(output / "digits")
    known = images.with_classes(KNOWN)
    novel = images.with_classes([c for c in images.classes if c not in KNOWN])
    report(
        f"{len(images)} handwritten digits. Training uses {', '.join(KNOWN)},"
        f" and never {', '.join(novel.classes)}."
    )

    config = get("glyph").merge(
        {"height": 32, "width": 32, "classes_per_batch": 14, "images_per_class": 8}
        | {"steps": _STEPS, "temperature": 0.1}
    )
    model = train(known, output / "digits.twin", config=config, seed=seed, progress=progress)
    report(f"Trained in {time.monotonic() - began:.0f} s: {output / 'digits.twin'}")

    found = model.evaluate(novel, ways=3, shots=1, seed=seed, progress=progress)
    report("\nDigits that training never used:\n" + str(found))
    names = {label: list(novel.with_classes([label]).images) for label in novel.classes}
    left, right = names[novel.classes[0]][:2], names[novel.classes[1]][:2]
    for a, b in ((left[0], left[1]), (left[0], right[0])):
        verdict = model.verify(a, b)
        report(
            f"verify {Path(str(a)).relative_to(output)} {Path(str(b)).relative_to(output)}:"
            f" {'same' if verdict.same else 'different'}, probability {verdict.probability:.2f}"
        )
    queries = {label: files[-1] for label, files in names.items()}
    guesses = model.classify(list(queries.values()), {label: files[:1] for label, files in names.items()})
    for label, guess in zip(queries, guesses, strict=True):
        report(f"one example each, which digit is this {label}? {guess.label or 'unknown'}")

    with model.gallery(output / "digits.gallery") as gallery:
        enrolled = [im for files in names.values() for im in files[:40]]
        gallery.add(
            enrolled, [label for label, files in names.items() for _ in files[:40]], progress=progress
        )
        probe = names[novel.classes[-1]][-1]
        hits = gallery.search(probe, k=5)
        report(
            f"search {gallery.count()} images for a {novel.classes[-1]}:"
            f" {', '.join(str(h.label) for h in hits)}"
        )

    some = np.sort(np.random.default_rng(seed).permutation(len(novel))[:300])
    pictures = visualization.story(model, novel.subset(some), output, seed=seed)
    for picture in pictures:
        report(f"picture: {picture}")
    report(f"\nThe demo took {time.monotonic() - began:.0f} s. Its files are in {output.resolve()}")
    return {
        "folder": str(output),
        "seconds": round(time.monotonic() - began, 1),
        "figures": found.to_json(),
        "pictures": [str(p) for p in pictures],
    }
