"""Uses of the public names that a type checker accepts."""

from pathlib import Path
from typing import assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import twinned as tw


class Stop(tw.Callback):
    """Stop at the first step."""

    def on_step(self, step: object) -> bool:
        return True


def train(images: NDArray[np.uint8]) -> tw.Model:
    data = tw.load_images(images, ["a", "a", "b", "b"])
    print(tw.check_data(data).problems)
    model = tw.train(data, Path("people.twin"), recipe="auto", minutes=3, callbacks=[Stop()], overwrite=True)
    tw.train("faces/", loss="supcon", image_size=(96, 96), settings={"rotate_classes": True})
    tw.finetune(model, "more/", "better.twin", minutes=0.5, overwrite=True, progress=False)
    tw.wrap("encoder.onnx", "faces/", distance="cosine", scale=1 / 255, image_size=224)
    assert_type(tw.load("people.twin"), tw.Model)
    return tw.Model.load("people.twin", device="cpu")


def use(model: tw.Model, picture: Image.Image) -> None:
    assert_type(model.verify("a.jpg", picture), tw.Verdict)
    model.verify(["a.jpg", b"..."], np.zeros((8, 8, 3), np.uint8), threshold=0.4)
    for answer in model.classify(["a.jpg", "b.jpg"], {"anna": "a.jpg", "ben": ["b.jpg", picture]}):
        print(answer.label or "unknown", answer.probability)
    print(model.classify("a.jpg", "people/").label)
    with model.gallery("people.gallery") as gallery:
        gallery.add("people/")
        print(model.identify(["a.jpg"], gallery), gallery.search("a.jpg", 5))
    found: tw.Evaluation = model.evaluate("faces/", ways=5, shots=1, seed=0)
    print(found, found.to_dict(), found.notes)
    comparison = tw.compare(model, tw.load("other.twin"), "faces/", seed=0)
    print(comparison, comparison.to_dict(), comparison.eer.p_value)
    tw.plots.roc({"a": found, "b": model.evaluate("faces/")}, ax=tw.plots.plain())
    if found.verification is not None:
        tw.plots.save(tw.plots.roc(found.verification), "roc.svg")


def measure(z: NDArray[np.float32], y: list[str]) -> None:
    pairs = tw.metrics.compare_all(z, y, "cosine")
    assert_type(tw.metrics.eer(pairs.distance, pairs.same), float)
    print(tw.metrics.roc([0.1, 0.2], [True, False]).auc(), tw.metrics.map_at_r(z, y))
    assert_type(tw.metrics.recall_at_k(z, y, ks=(1, 5), distance="euclidean"), dict[int, float])
    print(tw.metrics.few_shot(z, y, 5, 1, 1000, 0).accuracy)


def parts(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    loss = tw.losses.embedding_loss(tw.losses.TripletLoss(margin=0.2), miner=tw.miners.SemiHard())
    network = tw.SiameseNetwork(tw.encoders.Conv4(image_size=(32, 32), channels=3))
    print(network(z), tw.distances.cosine(z, z, pairwise=True), tw.data.make_pairs([0, 0, 1, 1]))
    try:
        tw.load("missing.twin")
    except tw.errors.ModelError as error:
        print(isinstance(error, tw.TwinnedError), error)
    result: torch.Tensor = loss(z, y)
    return result
