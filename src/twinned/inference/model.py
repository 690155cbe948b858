"""`Model`: load a saved model, then embed, verify, classify, identify, evaluate. PyTorch is not needed."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from ..data.images import ImageSource, as_many, is_folder
from ..errors import DataError, SettingError
from ..evaluation.calibration import Prediction, Verdict
from ..utils.progress import progress_bar
from . import inputs, model_folder
from .embedder import FolderEmbedder, GraphEmbedder, distinct, training_function
from .inputs import Images, Many, One, Support, as_list
from .model_folder import UNTOUCHED, checked
from .session import Floats, Graph, embed_images

if TYPE_CHECKING:
    from torch import nn

    from ..data.datasets import ImageSet, PairSet
    from ..data.preprocessing import ImageSpec
    from ..data.readers import Data
    from ..evaluation.protocols import ModelFacts
    from ..evaluation.results import Evaluation
    from ..gallery.gallery import Gallery, Labels
    from ..gallery.ingest import Where
    from ..gallery.results import Hit, Identification
    from .explain import Explanation

_PUBLIC = """classify embed evaluate explain from_network gallery identify load manifest preprocess save
search threshold to_torch verify verify_many with_faces"""


class Model(FolderEmbedder):
    """A trained model, loaded from its folder.

    Args:
        folder: Model folder, or the name of a ready-made model: ``face``, ``glyph`` or ``photo``. A model
            folder of that name in the working directory comes first.
        device: ``auto``, ``cpu``, ``cuda`` and so on; see `twinned.inference.session.Graph`.
        temporary: Temporary folder that holds the model and is deleted with it.

    Raises:
        ModelError: If the folder is missing, damaged or of another format.
        MissingExtra: If a ready-made model cannot be used without an extra.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        device: str = "auto",
        temporary: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        super().__init__(folder, device=device)
        self._temporary = temporary

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto") -> Model:
        """Load a model folder, or a ready-made model by its name; see the constructor."""
        return cls(path, device=device)

    @staticmethod
    def from_network(
        network: nn.Module,
        calibration_images: ImageSet | PairSet | str | os.PathLike[str],
        *,
        spec: ImageSpec | None = None,
        far: float | None = None,
        output: str | os.PathLike[str] | None = None,
        progress: bool = True,
    ) -> Model:
        """Make a model from a network in PyTorch: export it to ONNX, check the graph, choose the threshold.

        Args:
            network: A `SiameseNetwork`; or any module that maps floats ``(n, channels, height, width)`` to
                ``(n, d)``, compared by cosine or Euclidean distance, the one with fewer errors.
            calibration_images: Images or pairs that it was not trained on, or their path.
            spec: Input of the network; by default that of its encoder, or the size that all images have, in
                [0, 1], with the channels of the first convolution.
            far: False accept rate of the threshold; equal error by default.
            output: Model folder to write; by default a temporary one.
            progress: Show progress bars.

        Raises:
            SettingError: If the input is not known, ``far`` is out of range, or ``output`` exists.
            DataError: If the images give no genuine or no impostor comparison.
            ExportError: If the network cannot be exported, or ONNX Runtime computes something else.
        """
        found: Model = training_function("from_network", "Model.from_network")(
            network, calibration_images, spec=spec, far=far, output=output, progress=progress
        )
        return found

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.spec.shape))
        return f"Model({self.manifest.encoder}, {shape}, {self.distance}, {self.folder})"

    def __reduce__(self) -> tuple[Callable[[Path], Model], tuple[Path]]:
        """Support pickling: another process loads the model from its folder."""
        return partial(Model, device=self.device), (self.folder,)

    def __dir__(self) -> list[str]:
        """List the names for users, without those for galleries, evaluation, figures and the service."""
        return _PUBLIC.split()

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the model folder atomically.

        Args:
            path: Folder to write.
            force: Replace an existing model folder.

        Raises:
            SettingError: If the path exists and ``force`` is not set, or is not a model folder.
        """
        model_folder.copy(self.folder, Path(path), force=force)

    @cached_property
    def record(self) -> model_folder.TrainingRecord:
        """Record of the training: hashes of its images, layers, history."""
        return model_folder.TrainingRecord(self.folder, self.manifest, owner=self._temporary)

    def embed(self, images: Images, *, progress: bool = False) -> Floats:
        """Embed one image or many.

        Args:
            images: A path, Pillow image, array or bytes; a folder of images; or an iterable of images. Arrays
                of four dimensions, and those of one dimension that hold paths, are many.
            progress: Show a progress bar.

        Returns:
            float32, shape ``(d,)`` for one image, ``(n, d)`` for many.

        Raises:
            ImageError: At the first image that cannot be opened.
        """
        many, one = as_list(images)
        vectors = self._embed(many, progress=progress)
        return vectors[0] if one else vectors

    def _embed(
        self, images: Iterable[ImageSource], *, spec: ImageSpec | None = None, progress: bool = False
    ) -> Floats:
        total = len(images) if isinstance(images, Sequence) else None
        with progress_bar("Embedding", total, show=progress) as advance:
            return embed_images(images, spec or self.spec, self.encoder, advance)

    def verify(self, left: Images, right: ImageSource, *, threshold: float | None = None) -> Verdict:
        """Decide whether two images show the same identity.

        Args:
            left: An image, or several references, as a list or a folder. The distance to several references
                has a threshold of its own (`twinned.evaluation.reference_sets`); where the model has none,
                the distance to the nearest reference counts.
            right: Image to verify.
            threshold: Replaces the stored threshold, in units of the distance of the verdict.

        Raises:
            DataError: If there is no reference.
            ImageError: If an image cannot be opened.
            SettingError: If the threshold is not finite.
        """
        references = list(as_many(left, gray_batches=False))
        if any(map(is_folder, references)):
            from ..data.readers import references_of

            references = [image for given in references for image in references_of(given)]
        if not references:
            raise DataError("An image, or at least one reference, is needed to compare with; got none")
        vectors = embed_images([*references, right], self.spec, self.encoder)
        known, query = distinct(vectors[:-1]), vectors[-1:]
        distances = self.distances(known, query)
        nearest = int(distances[:, 0].argmin())
        (relations,) = self._relations(known[nearest : nearest + 1], query)
        (distance,), fitted = self._to_all(known, distances)
        return fitted.verdict(float(distance), threshold, relations)

    def verify_many(
        self,
        left: Iterable[ImageSource],
        right: Iterable[ImageSource],
        *,
        threshold: float | None = None,
        progress: bool = False,
    ) -> list[Verdict]:
        """Verify pairs of images; each image is opened once.

        Args:
            left: Left image of each pair.
            right: Right image of each pair.
            threshold: Replaces the stored threshold.
            progress: Show a progress bar.

        Returns:
            One verdict per pair.

        Raises:
            DataError: If the numbers of images differ.
        """
        first, second = list(left), list(right)
        if len(first) != len(second):
            raise DataError(f"Pairs need as many left as right images; got {len(first)} and {len(second)}")
        every = [*first, *second]
        keys = [os.fspath(one) if isinstance(one, (str, os.PathLike)) else id(one) for one in every]
        images = dict(zip(keys, every, strict=True))
        place = {key: index for index, key in enumerate(images)}
        vectors = self._embed(list(images.values()), progress=progress)
        sides = vectors[np.array([place[key] for key in keys], np.intp).reshape(2, -1)]
        calibration = self.manifest.calibration
        measured = zip(self.paired_distances(*sides), self._relations(*sides), strict=True)
        return [calibration.verdict(float(distance), threshold, found) for distance, found in measured]

    @overload
    def classify(  # type: ignore[overload-overlap] # a string is an iterable of strings
        self, images: One, support: Support, *, threshold: float | None = ..., progress: bool = ...
    ) -> Prediction: ...
    @overload
    def classify(
        self, images: Many, support: Support, *, threshold: float | None = ..., progress: bool = ...
    ) -> list[Prediction]: ...

    def classify(
        self, images: Images, support: Support, *, threshold: float | None = None, progress: bool = False
    ) -> Prediction | list[Prediction]:
        """Classify images by as few as one example per class, with unknown as an answer.

        The class of the nearest example is chosen. Whether the image belongs to it is decided as `verify`
        decides for a list of references: by the distance to all examples of the class, at the threshold
        fitted for their number. Beyond it the image is unknown.

        Args:
            images: One image or many.
            support: Examples of each class: a mapping from class to images, an `ImageSet`, or the path of
                class folders or a CSV.
            threshold: Replaces the stored threshold, in units of the distance of the prediction;
                ``float("inf")`` always names a class.
            progress: Show a progress bar.

        Returns:
            One prediction for one image; a list for many, or with `with_faces("all")`.

        Raises:
            DataError: If there is no class, or a class without images.
            SettingError: If the threshold is NaN.
        """
        if threshold is not None and math.isnan(threshold):
            raise SettingError("A threshold must be a number; got nan")
        examples = inputs.examples_of(support)
        empty = [label for label, given in examples.items() if len(given) == 0]
        if not examples or empty:
            raise DataError(f"Each class needs an image; none for {', '.join(empty) or 'any class'}")
        every = self.spec.faces == "all"
        spec = self.spec.with_faces("largest") if every else self.spec
        known = self._embed([image for given in examples.values() for image in given], spec=spec)
        ends = np.cumsum([len(given) for given in examples.values()])
        classes = [distinct(rows) for rows in np.split(known, ends[:-1])]
        many, one = as_list(images)
        asked, spec = inputs.queries_of(many, self.spec)
        queries = self._embed([query.image for query in asked], spec=spec, progress=progress)
        distances = [self.distances(rows, queries) for rows in classes]
        nearest = np.argmin([distance.min(axis=0) for distance in distances], axis=0)
        to_all = {number: self._to_all(classes[number], distances[number]) for number in np.unique(nearest)}
        names = list(examples)
        predictions = []
        for place, (query, number) in enumerate(zip(asked, nearest, strict=True)):
            label, (to, fitted) = names[number], to_all[number]
            distance, limit = float(to[place]), fitted.threshold if threshold is None else threshold
            within = label if distance <= limit else None
            probability = float(fitted.probability(distance))
            predictions.append(Prediction(query.name, within, probability, distance, label, limit, query.box))
        return predictions[0] if one and not every else predictions

    def gallery(
        self, address: str | os.PathLike[str], *, create: bool = True, read_only: bool = False
    ) -> Gallery:
        """Open a gallery.

        Args:
            address: A folder, or the URL of a server's collection.
            create: Create a missing gallery.
            read_only: Allow no changes.

        Raises:
            GalleryError: If it belongs to another model, is damaged, or in use by another process.
        """
        from ..gallery.open import open_gallery

        return open_gallery(os.fspath(address), self, create=create, read_only=read_only)

    @contextmanager
    def _opened(self, gallery: Gallery | str | os.PathLike[str]) -> Iterator[Gallery]:
        """Yield a gallery; close it if it was opened here."""
        if isinstance(gallery, (str, os.PathLike)):
            with self.gallery(gallery, create=False, read_only=True) as opened:
                yield opened
        elif hasattr(gallery, "identify"):
            yield gallery
        else:
            raise SettingError(f"Expected a gallery, its folder or its URL; got {type(gallery).__name__}")

    def identify(
        self,
        images: Images,
        gallery: Gallery | str | os.PathLike[str],
        *,
        fpir: float = 0.01,
        label: Labels = None,
        where: Where | None = None,
    ) -> list[Identification]:
        """Identify images in a gallery: an open one, or its folder or URL; see `Gallery.identify`."""
        with self._opened(gallery) as opened:
            return opened.identify(images, fpir=fpir, label=label, where=where)

    def search(
        self,
        image: ImageSource,
        gallery: Gallery | str | os.PathLike[str],
        k: int = 5,
        *,
        label: Labels = None,
        where: Where | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """Find the k most similar images of a gallery, as `identify` takes it; see `Gallery.search`."""
        with self._opened(gallery) as opened:
            return opened.search(image, k, label=label, where=where, exact=exact)

    def explain(
        self, left: ImageSource, right: ImageSource, *, method: Literal["auto", "exact", "occlusion"] = "auto"
    ) -> Explanation:
        """Find the matching regions of two images; see `twinned.inference.explain.explain`."""
        from .explain import explain

        return explain(self, left, right, method=method)

    def evaluate(
        self,
        data: Data,
        *,
        protocol: str = "auto",
        ways: int = 20,
        shots: int = 1,
        episodes: int = 1000,
        far: float | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> Evaluation:
        """Evaluate the model, and the encoder before training if the folder holds it.

        The stored threshold is measured, not changed.

        Args:
            data: Images, pairs, or their path.
            protocol: ``classes``, ``pairs``, ``lfw``, ``omniglot-runs``, or ``auto``: inferred from the data.
            ways: Classes per one-shot episode.
            shots: Examples per class in an episode.
            episodes: Number of episodes.
            far: Additional false accept rate for TAR at FAR.
            seed: Seed of episodes and resampling.
            progress: Show a progress bar.

        Raises:
            DataError: If the data do not fit the protocol.
        """
        from ..evaluation import protocols

        measure = partial(
            protocols.evaluate,
            data=data,
            protocol=protocol,
            ways=ways,
            shots=shots,
            episodes=episodes,
            far=far,
            seed=seed,
            progress=progress,
        )
        found = measure(self, facts=self._facts())
        if UNTOUCHED not in self.manifest.files:
            return found
        graph = Graph(checked(self.folder, UNTOUCHED, self.manifest), device=self.device)
        embedder = GraphEmbedder(graph, self.spec, self.manifest.held_out["untouched"]["distance"])
        before = measure(embedder, facts=protocols.ModelFacts(self.manifest.stored_calibration))
        return replace(found, details=found.details | {"untouched": before.headline()})

    def _facts(self) -> ModelFacts:
        """Return the facts about the model that its evaluation needs."""
        from ..evaluation.protocols import ModelFacts

        held_out = self.manifest.held_out
        return ModelFacts(
            calibration=self.manifest.stored_calibration,
            prototype=self.prototype,
            classes=self.manifest.classes,
            threshold_classes=held_out.get("classes", []),
            harder_impostors=list(held_out.get("impostors", {})),
            training_hashes=self.record.image_hashes,
            threshold_hashes=self.record.threshold_hashes,
            hash_limitation=self.record.hash_limitation,
            relations=self._relations if self.manifest.relations else None,
        )


load = Model.load
