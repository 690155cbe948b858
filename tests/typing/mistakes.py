"""Mistakes that a type checker finds. A comment on a line states the code of the error that mypy reports."""

import numpy as np
import torch

import twinned as tw


def names(model: tw.Model, gallery: tw.Gallery) -> None:
    tw.trian("faces/")  # attr-defined
    tw.lod_images("faces/")  # attr-defined
    tw.errors.DatError()  # attr-defined
    tw.losses.SupConLos()  # attr-defined
    tw.miners.SemiHrd()  # attr-defined
    tw.distances.cosin  # noqa: B018  # attr-defined
    tw.data.make_pair([0, 1])  # attr-defined
    tw.plots.rocc  # noqa: B018  # attr-defined
    tw.evaluation.Calibrations  # noqa: B018  # attr-defined
    tw.metrics.err([0.1], [True])  # attr-defined
    model.verfy("a.jpg", "b.jpg")  # attr-defined
    model.verify("a.jpg", "b.jpg").probabilty  # noqa: B018  # attr-defined
    model.evaluate("faces/").retreival  # noqa: B018  # attr-defined
    gallery.identfy("a.jpg")  # attr-defined


def keywords(model: tw.Model) -> None:
    tw.train("faces/", minuts=3)  # call-arg
    tw.finetune(model, "faces/", minuts=3)  # call-arg
    tw.load("people.twin", devise="cpu")  # call-arg
    tw.wrap("encoder.onnx", "faces/", scales="imagenet")  # call-arg
    tw.losses.ContrastiveLoss(margins=1.0)  # call-arg
    model.verify("a.jpg", "b.jpg", treshold=0.3)  # call-arg
    model.evaluate("faces/", shot=5)  # call-arg
    tw.metrics.recall_at_k(np.eye(4), [0, 0, 1, 1], k=1)  # call-arg
    tw.compare(model, model, "faces/", sed=1)  # call-arg
    model.identify("a.jpg", "people.gallery", fpr=0.01)  # call-arg
    tw.distances.cosine(np.eye(2), np.eye(2), pairwize=True)  # call-arg


def types(model: tw.Model) -> None:
    tw.train("faces/", minutes="three")  # arg-type
    tw.finetune(model, "faces/", resume="yes")  # arg-type
    tw.train("faces/", callbacks=[print])  # list-item
    tw.load(3)  # arg-type
    tw.plots.roc("a")  # arg-type
    tw.compare("a.twin", model, "faces/")  # arg-type
    tw.load_images("faces/", labels=7)  # arg-type
    tw.losses.TripletLoss(margin="wide")  # arg-type
    tw.metrics.few_shot(np.eye(4), [0, 0, 1, 1], "five")  # arg-type
    model.verify(1, "b.jpg")  # arg-type
    model.verify("a.jpg", ["b.jpg"])  # arg-type
    model.evaluate("faces/", ways="20")  # arg-type
    model.explain("a.jpg", "b.jpg", method="exakt")  # arg-type
    same: str = model.verify("a.jpg", "b.jpg").same  # assignment
    label: str = model.classify("a.jpg", "people/").label  # assignment
    vector: torch.Tensor = model.embed(np.zeros((8, 8), np.uint8))  # assignment
    print(same, label, vector)
