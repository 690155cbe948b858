"""The ready-made model ``glyph``: training on Omniglot's background set, and its figures.

    python benchmarks/glyph.py train --background images_background --steps 1500
    python benchmarks/glyph.py measure --evaluation images_evaluation --runs all_runs

`train` runs recipe glyph on the ink of the images and replaces the folder of the model in the package. The
threshold and every choice come from held-out characters of the background set: their equal error rate is
1.6 % with the ink cut out, and 1.9 % without. Weights are rounded to half precision, so that the folder
with what fine-tuning needs stays below 4 MB.
`measure`: the 20 official runs of 20-way one-shot classification, all characters of the evaluation set, and
printed letters.
The figures go into the card and into benchmarks/results/glyph.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

import twinned as tw
from twinned.inference import model_folder, ready_made
from twinned.inference.model_folder import Manifest
from twinned.nn.onnx_export import export_encoder
from twinned.utils.files import place
from twinned.utils.notes import Note

RESULTS = Path(__file__).parent / "results" / "glyph.json"
FOLDER = Path(ready_made.__file__).with_name("glyph")


def train(options: argparse.Namespace) -> None:
    """Train the model, or take a model that this command has trained, and write the folder of the package."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "glyph")
        if options.trained is None:
            model = tw.train(
                options.background,
                folder,
                recipe="glyph",
                steps=options.steps,
                seed=options.seed,
                settings={"ink": "grey", "fit": "pad"},
            )
        else:
            tw.load(options.trained).save(folder)
            model = tw.load(folder)
        network, weights = model.to_torch(), load_file(folder / "weights.safetensors")
        halves = {key: value.half() for key, value in weights.items() if key.startswith("encoder.")}
        network.load_state_dict({key: halves.get(key, value).float() for key, value in weights.items()})
        export_encoder(network.eval(), model.spec, folder / "encoder.onnx")
        save_file(weights | halves, folder / "weights.safetensors")
        manifest = model.manifest.model_copy(update={"licence": ready_made.READY_MADE["glyph"].license})
        text = f"it was trained on {ready_made.READY_MADE['glyph'].training_data}"
        _write(folder, manifest, Note("training-data", text))
        place(folder, FOLDER)
    print(f"{FOLDER}: {_size():,} bytes")


def _write(folder: Path, manifest: Manifest, note: Note) -> None:
    """Write the manifest and the card with another note, which replaces one of the same code."""
    notes = [note, *(each for each in manifest.coded_notes() if each.code != note.code)]
    model_folder.write(folder, manifest.with_notes(notes))


def _size() -> int:
    return sum(path.stat().st_size for path in FOLDER.iterdir())


def measure(options: argparse.Namespace) -> None:
    """Measure the model of the package on characters of other alphabets."""
    model = tw.load(FOLDER)
    runs = model.evaluate(options.runs, protocol="omniglot-runs", seed=options.seed).one_shot
    found = model.evaluate(options.evaluation, seed=options.seed)
    letters = model.evaluate(tw.data.load_letters(["armenian", "georgian"]), seed=options.seed).one_shot
    verification, retrieval = found.verification, found.retrieval
    assert runs is not None
    assert letters is not None
    assert verification is not None
    assert retrieval is not None
    assert found.one_shot is not None
    text = (
        f"measured on Omniglot's evaluation set, {verification.n_classes} characters of 20 other alphabets:"
        f" {runs.accuracy:.1%} of the 20 official runs of 20-way one-shot classification, and an equal error"
        f" rate of {verification.eer:.2%}"
    )
    _write(FOLDER, model.manifest, Note("evaluation-set", text))
    part = {
        "runs": {"accuracy": runs.accuracy, "ci": runs.ci},
        "evaluation": {
            **{
                key: getattr(verification, key) for key in ("eer", "eer_ci", "far", "far_ci", "frr", "frr_ci")
            },
            "one_shot": found.one_shot.accuracy,
            "recall_at_1": retrieval.recall_at[1],
            "classes": verification.n_classes,
        },
        "letters": {"one_shot": letters.accuracy, "ci": letters.ci},
        "bytes": _size(),
        "seed": options.seed,
    }
    RESULTS.write_text(json.dumps(part, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(part, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train")
    one.add_argument("--background", type=Path, help="unpacked images_background")
    one.add_argument("--steps", type=int, default=1500)
    one.add_argument("--trained", type=Path, help="model folder of an earlier training")
    two = commands.add_parser("measure")
    two.add_argument("--evaluation", type=Path, required=True, help="unpacked images_evaluation")
    two.add_argument("--runs", type=Path, required=True, help="unpacked all_runs")
    for each in (one, two):
        each.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    (train if options.command == "train" else measure)(options)


if __name__ == "__main__":
    main()
