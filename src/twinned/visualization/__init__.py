"""Pictures: fine in print, told apart by colour-blind readers, drawn without pyplot.

Each function draws what somebody else computed and returns matplotlib axes, which `save` writes to a .png or
.svg file. matplotlib is loaded when this package is.

    network      architecture
    training     history, accuracy over time
    curves       ROC, DET, distances, reliability, confusion
    embeddings   the map: projected, drawn with thumbnails
    forces       what a loss pulls and pushes
    panels       neighbours, a one-shot question, hardest pairs, what matches what
    story        the pictures of a trained model, as files
    style        house style, saving
"""

from __future__ import annotations

from ..inference.projection import project
from .embeddings import embedding_map
from .loss_fields import forces
from .model_figures import draw_architecture, story
from .network import architecture
from .panels import (
    Shown,
    hardest_pairs,
    matches,
    neighbours,
    one_shot,
    worst_mistakes,
)
from .roc import (
    confusion,
    det,
    distances,
    overview,
    reliability,
    roc,
)
from .style import (
    plain,
    png,
    save,
    svg,
    target,
    thumbnail,
)
from .training import accuracy_over_time, history

__all__ = [
    "Shown",
    "accuracy_over_time",
    "architecture",
    "confusion",
    "det",
    "distances",
    "draw_architecture",
    "embedding_map",
    "forces",
    "hardest_pairs",
    "history",
    "matches",
    "neighbours",
    "one_shot",
    "overview",
    "plain",
    "png",
    "project",
    "reliability",
    "roc",
    "save",
    "story",
    "svg",
    "target",
    "thumbnail",
    "worst_mistakes",
]
