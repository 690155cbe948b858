"""The slide deck's networks as written, mended, and Twinned: one-shot accuracy and equal error rate.

    python benchmarks/deck.py ladder --train images_background_small1 --evaluation images_evaluation \
        --runs all_runs
    python benchmarks/deck.py faces --data orl            # twinned data get orl
    python benchmarks/deck.py signatures --data cedar     # twinned data get cedar

The ladder starts with slide 1's network and slide 7's training as written, on drawings of 28x28, the size on
slide 6, and makes one change after the other. Every row is trained for the same number of images: slide 6's
pairs of 8 drawings of each of 136 characters, twice, in batches of 32 pairs. It is measured on characters
that training never saw: the official 20 runs of 20-way one-shot classification, and all pairs of 800
drawings. Faces and signatures use the networks and image sizes of slides 10 and 11, and people and writers
that training never saw. Each training adds a row to benchmarks/results/deck.csv, and the tables in deck.md
are made from all rows. A run that was stopped continues where it stopped: rows of the file are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import twinned as tw
from twinned.data.augmentation import Augmentation
from twinned.data.decoded import decode
from twinned.data.preprocessing import ImageSpec
from twinned.data.samplers import ClassBatches
from twinned.evaluation.protocols import ModelFacts, evaluate
from twinned.metrics.comparisons import compare_all
from twinned.metrics.few_shot import one_shot_accuracy
from twinned.metrics.roc import eer
from twinned.training.optimizers import create_optimizer
from twinned.training.process import keep_freed_memory
from twinned.training.recipes import get

RESULTS = Path(__file__).parent / "results" / "deck.csv"
FIELDS = ["task", "row", "seed", "one_shot", "eer", "forgeries", "steps", "seconds", "cores", "processor"]
BATCH = 32  # pairs, as on slide 7
NO_FACTS = ModelFacts(None)  # type: ignore[arg-type] # no threshold is needed


@dataclass(frozen=True)
class Row:
    """A row of a table: how the deck's network is trained and read.

    Args:
        head: ``sigmoid``: a dense layer over |a - b| or over the distance; ``euclidean``; or ``unit``, the
            cosine distance of vectors of length 1.
        loss: ``broadcast`` has n x n costs, as slides 5 to 7 as written; ``contrastive``; ``cross-entropy``;
            or ``batch``, the supervised contrastive loss of 64 images.
        pairs: ``order``: slide 6's pairs in slide 6's order; ``shuffled``; ``balanced``: half of them same.
        reversed: Read a large output as *same*, as slides 8 and 9.
        augment: Change the images at random, as the recipe glyph.
        turn: Use turned and mirrored classes as further classes, as the recipe glyph.
        muon: Muon instead of Adam.
    """

    head: str = "sigmoid"
    loss: str = "contrastive"
    pairs: str = "order"
    reversed: bool = False
    augment: bool = False
    turn: bool = False
    muon: bool = False


WRITTEN = Row(loss="broadcast", reversed=True)
DISTANCE = Row(head="euclidean", pairs="balanced", augment=True)
LADDER = {
    "as written": WRITTEN,
    "one cost for each pair": replace(WRITTEN, loss="contrastive"),
    "a small output read as same": Row(),
    "pairs shuffled": Row(pairs="shuffled"),
    "cross-entropy (slide 10)": Row(loss="cross-entropy", pairs="shuffled"),
    "contrastive loss on the distance, no sigmoid": Row(head="euclidean", pairs="shuffled"),
    "half of the pairs the same": replace(DISTANCE, augment=False),
    "augmentation": DISTANCE,
    "all pairs of a batch: supervised contrastive": Row(head="unit", loss="batch", augment=True),
    "turned and mirrored classes": Row(head="unit", loss="batch", augment=True, turn=True),
    "Muon": Row(head="unit", loss="batch", augment=True, turn=True, muon=True),
}
OURS = "Twinned: conv4_wide, 35x35"
READY = "Twinned: from the model face"


def make_network(row: Row, encoder: nn.Module, compare: str) -> tw.SiameseNetwork:
    """Return the deck's encoder with the head of a row."""
    if row.head == "unit":
        return tw.SiameseNetwork(encoder, normalize=True)
    if row.head == "euclidean":
        return tw.SiameseNetwork(encoder, tw.heads.Distance("euclidean"))
    return tw.SiameseNetwork(encoder, tw.heads.deck(compare))


def pair_batches(row: Row, labels: np.ndarray, steps: int, seed: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield left and right images and whether they are the same, pass after pass."""
    if row.pairs == "balanced":
        left, right, same = tw.data.make_pairs(labels, pairs=steps * BATCH, seed=seed)
    else:
        left, right, same = tw.data.make_pairs(labels, scheme="deck", seed=seed)
    rng, order = np.random.default_rng(seed), np.arange(0)
    for _ in range(steps):
        if len(order) < BATCH:
            order = np.arange(len(same)) if row.pairs == "order" else rng.permutation(len(same))
        now, order = order[:BATCH], order[BATCH:]
        yield left[now], right[now], same[now]


def pair_loss(row: Row, network: tw.SiameseNetwork, a: Tensor, b: Tensor, same: Tensor) -> Tensor:
    """Return the loss of a batch of pairs of embeddings."""
    if row.loss == "cross-entropy":
        return tw.losses.PairCrossEntropy()(network.head.logit(a, b), same)
    # Slide 7 trains the sigmoid's output as a distance.
    output = network.head.score(a, b) if row.head == "sigmoid" else network.head(a, b)
    if row.loss == "broadcast":
        labels, outputs = same.float(), output[:, None]
        return (labels * outputs**2 + (1 - labels) * (1 - outputs).clamp(min=0) ** 2).mean()
    return tw.losses.ContrastiveLoss(margin=1, factor=1)(output, same)


def fit(
    row: Row, network: tw.SiameseNetwork, pixels: Tensor, labels: np.ndarray, steps: int, seed: int
) -> None:
    """Train a network on pixels of shape (n, height, width, channels)."""
    recipe = get("glyph")
    change = Augmentation(**recipe.augment.model_dump()) if row.augment else Augmentation()
    optimizer = create_optimizer(network, nn.Module(), get("glyph" if row.muon else "deck"))
    batches = ClassBatches(
        labels, classes=16, images=4, rotate_classes=row.turn, flip_classes=row.turn, seed=seed
    )
    supcon = tw.losses.SupConLoss(temperature=recipe.loss.temperature)
    pairs = pair_batches(row, labels, steps, seed)
    for step in range(steps):
        if row.loss == "batch":
            batch = batches(step)
            turns = None if batch.turns is None else torch.from_numpy(batch.turns)
            images = change(pixels[torch.from_numpy(batch.index)], turns=turns, seed=step)
            loss = supcon(network.embed(images), torch.from_numpy(batch.labels))
        else:
            left, right, same = next(pairs)
            index, place = np.unique(np.concatenate([left, right]), return_inverse=True)
            vectors = network.embed(change(pixels[torch.from_numpy(index)], seed=step))[
                torch.from_numpy(place)
            ]
            loss = pair_loss(row, network, *vectors.chunk(2), torch.from_numpy(same))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()


class AsModel:
    """A network with the methods that an evaluation calls."""

    def __init__(self, network: tw.SiameseNetwork, spec: ImageSpec, row: Row) -> None:
        self.network, self.spec = network, spec
        by_score = row.head == "sigmoid" and row.loss != "cross-entropy"  # the output is the distance
        self.flip = by_score != row.reversed

    @torch.no_grad()
    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        return self.network.embed(Augmentation()(torch.from_numpy(pixels))).numpy()

    @torch.no_grad()
    def distances(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        rest = torch.from_numpy(b)
        rows = [self.network.head(torch.from_numpy(one)[None].expand_as(rest), rest) for one in a]
        found = torch.stack(rows).numpy()
        return 1 - found if self.flip else found


def add(
    task: str, row: str, seed: int, figures: tuple[float, float, float | None], steps: int, start: float
) -> None:
    """Append a row to the results, and rewrite the tables."""
    fresh = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(FIELDS)
        units = " with bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else ""
        shown = ["" if figure is None else round(figure, 4) for figure in figures]
        machine = [torch.get_num_threads(), torch.backends.cpu.get_cpu_capability() + units]
        writer.writerow([task, row, seed, *shown, steps, round(time.monotonic() - start), *machine])
    RESULTS.with_suffix(".md").write_text(tables())
    print(task, row, seed, *shown, flush=True)


def is_there(task: str, row: str, seed: int, steps: int) -> bool:
    """Return whether the results have a training already."""
    if not RESULTS.exists():
        return False
    with RESULTS.open(newline="") as file:
        rows = [tuple(row[part] for part in ("task", "row", "seed", "steps")) for row in csv.DictReader(file)]
    return (task, row, str(seed), str(steps)) in rows


def ladder(options: argparse.Namespace) -> None:
    """Train and measure every row of the ladder."""
    spec = ImageSpec(height=28, width=28, channels=1)
    known = first_images(tw.load_images(options.train), 8)
    novel = first_images(tw.load_images(options.evaluation), 4)
    novel = novel.with_classes(list(np.random.default_rng(0).permutation(novel.classes)[:200]))
    pixels = torch.from_numpy(decode(known.images, spec, progress=False).pixels)
    steps = 2 * len(tw.data.make_pairs(known.labels, scheme="deck")[0]) // BATCH

    def measure(model: Any) -> tuple[float, float, None]:
        shot = evaluate(model, options.runs, NO_FACTS, protocol="omniglot-runs", progress=False).one_shot
        return shot.accuracy, verify(model, novel)[0], None

    for seed in options.seeds:
        trained: dict[Row, tw.SiameseNetwork] = {}
        for name, row in LADDER.items():
            if is_there("ladder", name, seed, steps):
                continue
            start, same = time.monotonic(), replace(row, reversed=False)
            if same not in trained:
                torch.manual_seed(seed)
                encoder = tw.encoders.deck((64,), image_size=(28, 28), channels=1)
                trained[same] = make_network(row, encoder, "difference")
                fit(row, trained[same], pixels, known.class_index, steps, seed)
            add("ladder", name, seed, measure(AsModel(trained[same], spec, row)), steps, start)
        start, ours = time.monotonic(), steps * 2 * BATCH // 192  # images in a batch of the recipe
        if is_there("ladder", OURS, seed, ours):
            continue
        model = tw.train(known, recipe="glyph", steps=ours, seed=seed, progress=False)
        add("ladder", OURS, seed, measure(model), ours, start)


def verify(model: Any, data: tw.ImageSet) -> tuple[float, float | None]:
    """Return the equal error rate against other classes, and against forgeries where there are any."""
    vectors = model.embed_pixels(decode(data.images, model.spec, progress=False).pixels)
    found = compare_all(vectors, data.labels, model.distances, forgery=data.forgery)
    skilled = np.zeros(len(found.same), bool) if found.skilled is None else found.skilled
    forgeries = (
        eer(found.distance[found.same | skilled], found.same[found.same | skilled]) if skilled.any() else None
    )
    return eer(found.distance[~skilled], found.same[~skilled]), forgeries


def first_images(data: tw.ImageSet, count: int) -> tw.ImageSet:
    """Return the first images of each class."""
    rank = np.zeros(len(data), np.intp)
    for one in range(len(data.classes)):
        inside = np.flatnonzero(data.class_index == one)
        rank[inside] = np.arange(len(inside))
    return data.subset(rank < count)


def _task(
    encoder: str, recipe: str, classes: Callable[[tw.ImageSet], list[str]]
) -> Callable[[argparse.Namespace], None]:
    """Return a function that measures slide 10 or 11: as written, mended, and Twinned."""

    def run(options: argparse.Namespace) -> None:
        data = tw.load_images(options.data)
        known, novel = data.with_classes(classes(data)).split_classes(0.7, seed=0)
        genuine = known.subset(~known.forgery)
        shape = tw.encoders.input_shape(encoder)
        spec = ImageSpec(height=shape[0], width=shape[1], channels=shape[2])
        pixels = torch.from_numpy(decode(genuine.images, spec, progress=False).pixels)
        mended = Row(head="euclidean", pairs="balanced")
        rows = {"as written": Row(loss="cross-entropy", pairs="shuffled"), "mended": mended}

        def measure(model: Any) -> tuple[float, float, float | None]:
            genuine = novel.subset(~novel.forgery)
            vectors = model.embed_pixels(decode(genuine.images, model.spec, progress=False).pixels)
            ways = len(novel.classes)
            shot = one_shot_accuracy(vectors, genuine.labels, model.distances, ways=ways)
            return shot.accuracy, *verify(model, novel)

        for seed in options.seeds:
            for name, row in rows.items():
                if is_there(recipe, name, seed, options.steps):
                    continue
                start = time.monotonic()
                torch.manual_seed(seed)
                built = tw.encoders.create_encoder(encoder, image_size=shape[:2], channels=shape[2])
                network = make_network(row, built, "euclidean")
                fit(row, network, pixels, genuine.class_index, options.steps, seed)
                add(recipe, name, seed, measure(AsModel(network, spec, row)), options.steps, start)
            trained = {"Twinned": (recipe, options.ours)} | ({READY: ("auto", 0)} if recipe == "face" else {})
            for name, (chosen, steps) in trained.items():
                if is_there(recipe, name, seed, steps):
                    continue
                start = time.monotonic()
                length: dict[str, Any] = {"steps": steps} if steps else {}
                model = tw.train(known, recipe=chosen, seed=seed, progress=False, **length)
                add(recipe, name, seed, measure(model), steps, start)

    return run


def tables() -> str:
    """Return the Markdown tables of all rows: the mean over the seeds, and the range."""
    with RESULTS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [f"{platform.machine()}, torch {torch.__version__}"]
    for task in dict.fromkeys(row["task"] for row in rows):
        lines += ["", f"## {task}", ""]
        lines += [
            "| | one-shot | EER | EER against forgeries | seeds | steps | seconds | cores | processor |"
        ]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        for name in dict.fromkeys(row["row"] for row in rows if row["task"] == task):
            mine = [row for row in rows if (row["task"], row["row"]) == (task, name)]
            cells = [spread([row[part] for row in mine]) for part in ("one_shot", "eer", "forgeries")]
            seconds = np.mean([float(row["seconds"]) for row in mine])
            last = mine[-1]
            lines.append(
                f"| {name} | {' | '.join(cells)} | {len(mine)} | {last['steps']} | {seconds:.0f}"
                f" | {last['cores']} | {last['processor']} |"
            )
    return "\n".join(lines) + "\n"


def spread(values: list[str]) -> str:
    """Return the mean of rates in percent, with the range of several."""
    rates = [100 * float(value) for value in values if value]
    if not rates:
        return ""
    span = f" ({min(rates):.1f} to {max(rates):.1f})" if len(rates) > 1 else ""
    return f"{np.mean(rates):.1f} %{span}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tasks = parser.add_subparsers(required=True)
    one = tasks.add_parser("ladder", help="slide 1's network, one change after the other")
    for name in ("train", "evaluation", "runs"):
        one.add_argument(f"--{name}", type=Path, required=True, help="an unpacked folder of Omniglot")
    one.set_defaults(run=ladder)
    faces = _task("deck_face", "face", lambda data: data.classes)
    signatures = _task("deck_signature", "signature", lambda data: data.classes[:30])
    for name, run in (("faces", faces), ("signatures", signatures)):
        two = tasks.add_parser(name, help=f"slide {10 if name == 'faces' else 11}")
        two.add_argument("--data", type=Path, required=True, help="the unpacked data set")
        two.add_argument("--steps", type=int, default=40, help="steps of the deck's network")
        two.add_argument("--ours", type=int, default=60, help="steps of Twinned")
        two.set_defaults(run=run)
    for each in tasks.choices.values():
        each.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    keep_freed_memory()
    RESULTS.parent.mkdir(exist_ok=True)
    options.run(options)


if __name__ == "__main__":
    main()
