"""Command demo: train on letters of three alphabets, then recognize letters of two others."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Option

import twinned as tw

from ..errors import SettingError
from ..utils.notes import muted
from ..utils.progress import progress_bar
from .options import Commands, Run, Seed

app = Commands()

_KNOWN, _NEW = ("latin", "greek", "cyrillic"), ("armenian", "georgian")
# Chosen on held-out Latin, Greek and Cyrillic letters. Steps instead of minutes, so that the figures do not
# depend on the machine's load.
SETTINGS = {
    "steps": 300,
    "height": 28,
    "width": 28,
    "evaluations": 2,
    "rotate_classes": False,  # a turned or mirrored letter can be another letter, such as n and u
    "flip_classes": False,
}
_WAYS, _PER_LETTER, _FPIR = 20, 5, 0.05
_DIGITS = 50  # images of each digit
_NEXT = """
Go on with your own images, one folder for each person, product or symbol:
   twinned train IMAGES -o mine.twin --minutes 3
   twinned verify mine.twin a.jpg b.jpg
   twinned classify mine.twin ONE_EXAMPLE_EACH new.jpg"""
_LINE = "   {:<44} {:>6.1%}  [{:.1%} to {:.1%}]"


@app.command()
def demo(
    run: Run,
    output: Annotated[Path, Option("-o", "--output", help="Folder for model and pictures.")] = Path("demo"),
    seed: Seed = 0,
) -> None:
    """Train on Latin, Greek and Cyrillic letters, then recognize Armenian and Georgian ones."""

    def report(sentence: str) -> None:
        if not (run.json or run.quiet):
            print(sentence, flush=True)

    began, progress, folder = time.monotonic(), run.progress, output / "letters.twin"
    if output.is_file():
        raise SettingError(f"{output}: is a file; choose a folder with -o")
    if output.exists():
        if any(output.iterdir()) and not folder.exists():
            raise SettingError(f"{output}: exists and holds no demo; choose another folder with -o")
        shutil.rmtree(output)
    report("1. Draw letters with the 16 typefaces that matplotlib ships")
    known = write_letters(output / "letters" / "known", _KNOWN, seed=seed, progress=progress)
    new = write_letters(output / "letters" / "new", _NEW, seed=seed, progress=progress)
    report(f"   {len(known):,} images of {len(known.classes)} Latin, Greek and Cyrillic letters for training")
    report(f"   {len(new):,} images of {len(new.classes)} Armenian and Georgian letters, never trained on")

    report(f"\n2. Train a Siamese network, {SETTINGS['steps']} steps")
    with progress_bar("   Loading PyTorch", show=progress):
        config, train = tw.recipes.get("glyph").merge(SETTINGS), tw.train
    with muted():  # notes of training explain choices that a demo does not make
        model = train(known, folder, config=config, seed=seed, progress=progress)
    report(f"   {folder}, {time.monotonic() - began:.0f} s after the start")

    report("\n3. Measure it on the alphabets that it has never seen [95 % interval]")
    found = model.evaluate(new, ways=_WAYS, shots=1, seed=seed, progress=progress)
    _report_figures(found, "letters", report)
    report("   Guessing gives 5% and 50%. Equal error rate: as many pairs of one letter are")
    report("   called different as pairs of two letters are called the same.")
    enrolled, others = _report_gallery(model, new, output, report, progress=progress)
    digits = _report_digits(model, report, seed=seed, progress=progress)
    report("\n6. Draw pictures")
    pictures = _draw(model, enrolled, others, new, output, seed=seed)
    report("\n".join(f"   {picture}" for picture in pictures))
    report(_NEXT)
    seconds = round(time.monotonic() - began, 1)
    report(f"\nThe demo took {seconds:.0f} s. See the letters and the model in a browser:")
    report(f"   twinned serve {folder} --gallery {output / 'letters.gallery'}")
    if run.json:
        result = {"folder": str(output), "seconds": seconds, "figures": found.to_json()}
        result |= {"digits": digits.to_json(), "pictures": [str(p) for p in pictures]}
        run.print(result, "")


def write_letters(
    folder: Path, scripts: Sequence[str], *, seed: int = 0, progress: bool = False
) -> tw.ImageSet:
    """Write letters as PNG files, one folder per letter, and read the folder; see `load_letters`."""
    from ..data.catalog.convert import write_images

    letters = tw.data.load_letters(scripts, seed=seed)
    with progress_bar("   Writing images", len(letters), show=progress) as advance:
        write_images(letters, folder, advance=advance)
    return tw.load_images(folder)


def _report_figures(found: tw.Evaluation, things: str, report: Callable[[str], None]) -> None:
    """Print the accuracy with one example per class, and the equal error rate."""
    one, pairs = found.one_shot, found.verification
    assert one is not None
    assert pairs is not None
    assert pairs.eer is not None
    report(_LINE.format(f"which of {one.ways} {things}, from one example each:", one.accuracy, *one.ci or ()))
    report(_LINE.format("same or different (equal error rate):", pairs.eer, *pairs.eer_ci or ()))


def _report_gallery(
    model: tw.Model, new: tw.ImageSet, output: Path, report: Callable[[str], None], *, progress: bool
) -> tuple[tw.ImageSet, tw.ImageSet]:
    """Enroll some images of every fifth letter, identify all others, and search for one; return both."""
    import numpy as np

    labels = new.classes[::5]
    places = [np.flatnonzero(new.labels == label) for label in labels]
    enrolled = new.subset(np.concatenate([row[:_PER_LETTER] for row in places]))
    others = new.subset(np.concatenate([row[_PER_LETTER:] for row in places]))
    strangers = new.subset(~np.isin(new.labels, labels))
    report(f"\n4. Enroll {_PER_LETTER} images of {len(labels)} of these letters, and identify other images")
    with model.gallery(output / "letters.gallery") as gallery:
        gallery.add(enrolled.images, enrolled.labels.tolist(), progress=progress)
        answers = [answer.label for answer in gallery.identify(others.images, fpir=_FPIR)]
        named = [answer.label for answer in gallery.identify(strangers.images, fpir=_FPIR)]
        hits = gallery.search(others.images[0], k=3)
    right = sum(a == label for a, label in zip(answers, others.labels, strict=True))
    unknown, count = answers.count(None), len(answers)
    report(
        f"   {count} other images of the {len(labels)} letters: {right / count:.0%} right,"
        f" {(count - right - unknown) / count:.0%} wrong, {unknown / count:.0%} unknown"
    )
    report(
        f"   {len(strangers)} images of {len(new.classes) - len(labels)} letters not enrolled:"
        f" {named.count(None) / len(named):.0%} unknown ({1 - _FPIR:.0%} requested)"
    )
    for place in range(0, count, count // 3 + 1):
        report(f"   {_short(others.images[place])} is {answers[place] or 'unknown'}")
    report(f"   {_short(strangers.images[0])} is {named[0] or 'unknown'} (not enrolled)")
    report(f"   Search for {_short(others.images[0])}, nearest first:")
    for hit in hits:
        report(f"      distance {hit.distance:.3f}  {_short(hit.image)}")
    return enrolled, others


def _short(image: object) -> str:
    """Return the last two parts of a path."""
    return "/".join(Path(str(image)).parts[-2:])


def _report_digits(
    model: tw.Model, report: Callable[[str], None], *, seed: int, progress: bool
) -> tw.Evaluation:
    """Measure the model on handwriting, which it was not trained for."""
    import numpy as np

    digits = tw.data.load_digits()
    some = np.concatenate([np.flatnonzero(digits.labels == label)[:_DIGITS] for label in digits.classes])
    report("\n5. Something harder: handwritten digits of 8x8 pixels, from scikit-learn")
    found = model.evaluate(digits.subset(some), ways=10, shots=1, seed=seed, progress=progress)
    _report_figures(found, "digits", report)
    report("   The model has seen print only: to recognize handwriting, train on handwriting.")
    return found


def _draw(
    model: tw.Model, enrolled: tw.ImageSet, others: tw.ImageSet, new: tw.ImageSet, output: Path, *, seed: int
) -> list[Path]:
    """Write the pictures: nearest letters, one-shot answer, map, training history and architecture."""
    import numpy as np

    queries = others.subset(np.unique(others.labels, return_index=True)[1][::5])
    asked = [
        tw.plots.Shown(image, str(label)) for image, label in zip(queries.images, queries.labels, strict=True)
    ]
    distances = model.distances(model.embed(queries.images), model.embed(enrolled.images))

    def shown(row: Any, places: Any) -> list[tw.plots.Shown]:
        return [tw.plots.Shown(enrolled.images[i], str(enrolled.labels[i]), float(row[i])) for i in places]

    found = [shown(row, np.argsort(row)[:7]) for row in distances]
    support = shown(distances[0], range(0, len(enrolled), _PER_LETTER))
    pictures = {
        output / "search.png": tw.plots.neighbours(asked, found),
        output / "one-shot.png": tw.plots.one_shot(asked[0], support),
    }
    for file, axes in pictures.items():
        tw.plots.save(axes, file)
    return [*pictures, *tw.plots.story(model, new, output, seed=seed)]
