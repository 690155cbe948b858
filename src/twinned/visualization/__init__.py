"""Figures of models, training and metrics, for print and for color-blind readers; public as `twinned.plots`.

Each function draws a result that was computed elsewhere and returns matplotlib axes, which `save` writes to
a .png or .svg file. Importing this package imports matplotlib, without pyplot.
"""

from __future__ import annotations

from ..inference.projection import project
from .maps import embedding_map
from .model_figures import draw_architecture, story
from .network import architecture
from .panels import Shown, hardest_pairs, matches, neighbours, one_shot, worst_mistakes
from .roc import confusion, det, distances, overview, reliability, roc
from .style import plain, png, save, svg, target, thumbnail
from .training import accuracy_over_time, forces, history

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
