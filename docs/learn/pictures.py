"""Draw the pictures of the course, into docs/learn/pictures.

python docs/learn/pictures.py              # all
python docs/learn/pictures.py distances    # some
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import twinned as tw
from twinned.visualization.colors import BLUE, GRAY, GREEN, INK, VERMILLION
from twinned.visualization.style import dress, legend, sheet

HERE = Path(__file__).parent / "pictures"


def slide3() -> None:
    """Draw the network of slide 3."""
    encoder = tw.encoders.deck(filters=(32, 64), dense=128, image_size=(64, 64), channels=3)
    network = tw.SiameseNetwork(encoder, tw.heads.Distance("euclidean"))
    tw.plots.save(tw.plots.architecture(network), HERE / "slide3.png", force=True, dpi=110)


def distances() -> None:
    """Draw lines of equal distance from a point."""
    grid = np.linspace(-1, 3, 200)
    x, y = np.meshgrid(grid, grid)
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    axes = list(sheet(9, 3.4).subplots(1, 3))
    for ax, (name, levels) in zip(
        axes, {"euclidean": 6, "manhattan": 6, "cosine": [0.01, 0.05, 0.15, 0.3, 0.6, 1.0]}.items()
    ):
        apart = tw.distances.get(name)(points, np.array([[1.0, 1.0]]), pairwise=True).reshape(x.shape)
        lines = ax.contour(x, y, apart, levels=levels, colors=BLUE, linewidths=1)
        ax.clabel(lines, fontsize=7, fmt="%g")
        ax.plot([1], [1], "o", color=INK)
        ax.plot([0], [0], "+", color=GRAY)
        dress(ax, title=name.capitalize(), grid="").set(aspect="equal")
    tw.plots.save(axes, HERE / "distances.png", force=True, dpi=110)


def margin() -> None:
    """Draw the contrastive loss and its gradient against the distance."""
    d = np.linspace(0, 1.6, 300)
    ax, slope = sheet(8, 3.2).subplots(1, 2)
    for axis, same, different, y in (
        (ax, d**2 / 2, np.maximum(0, 1 - d) ** 2 / 2, "loss of the pair"),
        (slope, d, -np.maximum(0, 1 - d), "its derivative: > 0 pulls, < 0 pushes"),
    ):
        axis.plot(d, same, color=BLUE, label="same class")
        axis.plot(d, different, color=VERMILLION, linestyle="--", label="different classes")
        axis.axvline(1, color=GRAY, linewidth=0.8, linestyle=":")
        dress(axis, x="distance d (margin 1)", y=y)
    legend(ax, loc="upper center")
    tw.plots.save([ax, slope], HERE / "margin.png", force=True, dpi=110)


def scattered() -> tuple[torch.Tensor, torch.Tensor]:
    """Return 18 points of three overlapping classes, and their labels."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(3).repeat_interleave(6)
    middles = torch.tensor([[0.0, 0.0], [0.7, 0.1], [0.3, 0.6]])
    return middles[labels] + 0.28 * torch.randn(18, 2, generator=generator), labels


def forces() -> None:
    """Draw the pulls and pushes of the contrastive loss, and both together."""
    points, labels = scattered()
    points.requires_grad_()
    apart = tw.distances.euclidean(points, points, pairwise=True)
    same = labels[:, None] == labels
    upper = torch.ones_like(same).triu(1)
    cost = tw.losses.ContrastiveLoss(margin=0.8)(apart[upper], same[upper], reduction="none")
    panels = []
    for name, chosen in (("Pulls", same[upper]), ("Pushes", ~same[upper]), ("Both", same[upper] >= 0)):
        (gradient,) = torch.autograd.grad(cost[chosen].sum(), points, retain_graph=True)
        panels.append((f"{name}: {int((cost[chosen] > 0).sum())} pairs", -gradient))
    drawn = tw.plots.forces(points.detach(), panels, labels.tolist())
    tw.plots.save(drawn, HERE / "forces.png", force=True, dpi=110)


def triplets() -> None:
    """Draw where easy, semi-hard and hard negatives of an anchor lie."""
    from matplotlib.patches import Circle

    ax = tw.plots.plain(5, 4.2)
    positive, outer = 1.0, 1.6
    ax.add_patch(Circle((0, 0), outer, color=GREEN, alpha=0.18, linewidth=0))
    ax.add_patch(Circle((0, 0), positive, color=VERMILLION, alpha=0.25, linewidth=0))
    ax.plot([0], [0], "o", color=INK)
    ax.annotate("anchor", (0, 0), (0.05, -0.22), fontsize=9)
    ax.plot([positive * np.cos(2.6)], [positive * np.sin(2.6)], "o", color=BLUE)
    ax.annotate(
        "positive", (positive * np.cos(2.6), positive * np.sin(2.6)), (-1.35, 0.62), fontsize=9, color=BLUE
    )
    for text, at in (("hard", (0.35, 0.35)), ("semi-hard", (0.72, 1.02)), ("easy: no loss", (1.35, 1.55))):
        ax.plot([at[0]], [at[1]], "s", color=INK, markersize=5)
        ax.annotate(text, at, (at[0] + 0.08, at[1] - 0.04), fontsize=9)
    ax.annotate(
        "", (outer, 0), (positive, 0), arrowprops={"arrowstyle": "<->", "color": INK, "linewidth": 0.9}
    )
    ax.annotate("margin", (1.05, -0.18), fontsize=9)
    ax.set_axis_off()
    ax.set(xlim=(-2, 2.6), ylim=(-1.8, 1.9), aspect="equal", xticks=[], yticks=[])
    tw.plots.save(ax, HERE / "triplets.png", force=True, dpi=110)


def koch2015() -> None:
    """Draw the network of Koch et al."""
    network = tw.SiameseNetwork(tw.encoders.Koch2015(), tw.heads.WeightedL1())
    tw.plots.save(tw.plots.architecture(network), HERE / "koch2015.png", force=True, dpi=110)


def chopra2005() -> None:
    """Draw the losses of 2005 and 2006."""
    d = torch.linspace(0, 1.6, 300)
    axes = list(sheet(8, 3.2).subplots(1, 2))
    for ax, title, loss in (
        (axes[0], "2005: exponential, Q = 1", tw.losses.ChopraLoss(bound=1.0)),
        (axes[1], "2006: margin 1", tw.losses.ContrastiveLoss(margin=1.0)),
    ):
        for name, same, color, line in (("same", True, BLUE, "-"), ("different", False, VERMILLION, "--")):
            cost = loss(d, torch.full(d.shape, same), reduction="none")
            ax.plot(d, cost, color=color, linestyle=line, label=name)
        dress(ax, title=title, x="distance", y="loss of the pair")
    legend(axes[0])
    tw.plots.save(axes, HERE / "chopra2005.png", force=True, dpi=110)


def perplexity() -> None:
    """Draw random points by t-SNE at three perplexities."""
    from sklearn.manifold import TSNE

    noise = np.random.default_rng(0).normal(size=(300, 20))
    axes = list(sheet(8.4, 3.1).subplots(1, 3))
    for ax, value in zip(axes, (2, 10, 50)):
        points = TSNE(perplexity=value, random_state=0).fit_transform(noise)
        ax.plot(points[:, 0], points[:, 1], "o", color=BLUE, markersize=2.5)
        dress(ax, title=f"perplexity {value}", grid="").set(xticks=[], yticks=[])
    tw.plots.save(axes, HERE / "perplexity.png", force=True, dpi=110)


def of_the_model() -> None:
    """Draw the pictures of chapters 8, 9, 11 and 13, of the model that chapter 7 leaves in build/learn."""
    model = tw.load(HERE.parents[2] / "build" / "learn" / "letters.twin")
    novel = tw.data.load_letters(["armenian", "georgian"], size=24)
    found = model.evaluate(novel, progress=False)
    drawn = tw.plots.distances(found.comparisons, model.threshold)
    tw.plots.save(drawn, HERE / "distances-of-pairs.png", force=True, dpi=110)

    vectors = model.embed(list(novel.images))
    apart = model.distances(vectors, vectors) + 1e9 * np.eye(len(novel))
    asked = np.random.default_rng(2).permutation(len(novel))[:4]
    queries = [tw.plots.Shown(novel.images[i], short(novel.labels[i])) for i in asked]
    rows = [
        [
            tw.plots.Shown(novel.images[j], short(novel.labels[j]), float(apart[i, j]))
            for j in apart[i].argsort()[:6]
        ]
        for i in asked
    ]
    drawn = tw.plots.neighbours(queries, rows, threshold=model.threshold)
    tw.plots.save(drawn, HERE / "search.png", force=True, dpi=80)

    armenian = novel.with_classes([c for c in novel.classes if c.startswith("armenian-small")][:16])
    points = tw.plots.project(
        model.embed(list(armenian.images)), method="tsne", distance=model.distance, seed=0
    )
    names = [short(label) for label in armenian.labels]
    drawn = tw.plots.embedding_map(points, names, images=armenian.images, method="t-SNE")
    tw.plots.save(drawn, HERE / "map.png", force=True, dpi=75)


def one_shot() -> None:
    """Draw a query that is answered rightly and one that is not (chapter 9)."""
    model = tw.load(HERE.parents[2] / "build" / "learn" / "letters.twin")
    georgian = tw.data.load_letters(["georgian"], size=24)
    letters = georgian.classes[:10]
    images = {label: list(georgian.with_classes([label]).images) for label in letters}
    support = model.embed([images[label][0] for label in letters])
    queries = [(label, image) for label in letters for image in images[label][1:]]
    distance = model.distances(model.embed([image for _, image in queries]), support)
    right = np.array([letters[k] for k in distance.argmin(axis=1)]) == [label for label, _ in queries]
    for name, place in (("right", np.flatnonzero(right)[7]), ("wrong", np.flatnonzero(~right)[0])):
        shown = [
            tw.plots.Shown(images[label][0], short(label), float(d))
            for label, d in zip(letters, distance[place])
        ]
        query = tw.plots.Shown(queries[place][1], short(queries[place][0]))
        drawn = tw.plots.one_shot(query, shown, threshold=model.threshold)
        tw.plots.save(drawn, HERE / f"one-shot-{name}.png", force=True, dpi=80)


def short(label: str) -> str:
    """Return the name of a letter without its script: armenian-small-ben is ben."""
    return str(label).split("-", 2)[-1]


PICTURES: tuple[Callable[[], None], ...] = (
    *(slide3, distances, margin, forces, triplets, koch2015, chopra2005),
    *(perplexity, of_the_model, one_shot),
)

if __name__ == "__main__":
    for picture in PICTURES:
        if not sys.argv[1:] or picture.__name__ in sys.argv[1:]:
            picture()
