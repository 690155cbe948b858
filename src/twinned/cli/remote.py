"""Client of a running service, with the methods of `Model` and `Gallery` that the commands use (--url)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

import numpy as np
import requests

from ..data.preprocessing import ImageSpec
from ..data.readers import find_images, load_images
from ..errors import DataError, GalleryError, ImageError, SettingError
from ..evaluation.calibration import Prediction, Verdict
from ..gallery.results import Added, Hit, Identification, Page
from ..gallery.store import Record
from ..utils.progress import progress_bar

if TYPE_CHECKING:
    from ..inference.embed_file import Rows

_SECONDS = 60.0
# Bytes and images of one request. A service accepts 32 MiB and 64 images unless it is set otherwise.
_MAX_BYTES, _MAX_IMAGES = 16 * 1024 * 1024, 32
_PAGE = 500
File = tuple[str, tuple[str, bytes]]  # field of a form, name, content
_Answer = TypeVar("_Answer", bound=Prediction | Identification)
_Groups = list[list[Hit]]  # inside the class, `list` is its method


class _Removed(NamedTuple):
    items: range


class RemoteService:
    """A service at an address, which answers in place of a model and of its gallery."""

    spec = ImageSpec(height=64, width=64)  # only its `faces` is used

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingError(f"--url {url}: expected the address of a service, http://HOST:PORT")
        self._url = url.rstrip("/")
        self._faces: str | None = None
        self._session = requests.Session()
        # A proxy cannot reach this machine's own addresses.
        self._session.trust_env = parts.hostname not in ("localhost", "127.0.0.1", "::1")
        if token := os.environ.get("TWINNED_TOKEN"):
            self._session.auth = lambda request: (
                request.headers.update({"Authorization": f"Bearer {token}"}) or request
            )

    def __enter__(self) -> RemoteService:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def with_faces(self, faces: str | None = None, min_face: int | None = None) -> RemoteService:
        """Set the faces that the service looks for; the size of the smallest is the service's."""
        _unsupported("--min-face", min_face)
        self._faces = faces or self._faces
        return self

    def gallery(self, address: str, *, create: bool = False) -> RemoteService:
        """Return this service, which has its gallery open."""
        return self

    # ---- model

    def verify(self, a: Path, b: Path, *, threshold: float | None = None) -> Verdict:
        """Verify two images, or references in a folder and an image."""
        files = [_read(path, "a") for path in (find_images(a) if a.is_dir() else [a])]
        found = self._post("/v1/verify", [*files, _read(b, "b")], threshold=threshold)
        return Verdict(**{name: found[name] for name in Verdict._fields if name in found})

    def classify(
        self, images: Sequence[str], support: Path, *, threshold: float | None, progress: bool
    ) -> list[Prediction]:
        """Classify images from a folder with one folder per class."""
        given = load_images(support)
        pairs = zip(given.images, given.labels, strict=True)
        examples = [_read(image, f"support[{label}]") for image, label in pairs]
        return self._answers(
            "/v1/classify", Prediction, images, examples, progress=progress, threshold=threshold
        )

    def embedder(self) -> Callable[[Sequence[str]], Iterator[Rows]]:
        """Return a function that embeds images, for `embed_to_file`, after the service has answered once."""
        _unsupported("--faces all", self._faces == "all")
        size = int(self._ask("GET", "/v1/model")["embedding_size"])

        def embed(images: Sequence[str]) -> Iterator[Rows]:
            for start in range(0, len(images), _MAX_IMAGES):
                yield from self._embed(images[start : start + _MAX_IMAGES], size)

        return embed

    def _embed(self, images: Sequence[str], size: int) -> Iterator[Rows]:
        """Embed images in one request, or each half of them if that is too large or has unreadable images."""
        from ..inference.embed_file import Rows

        try:
            files = [_read(image) for image in images]
            if len(images) > 1 and _size(files) > _MAX_BYTES:
                raise DataError("The images are too large for one request")
            found = self._post("/v1/embed", files)
        except DataError as error:
            if len(images) > 1:
                half = len(images) // 2
                yield from self._embed(images[:half], size)
                yield from self._embed(images[half:], size)
                return
            vectors = np.full((1, size), np.nan, np.float32)
            yield Rows(1, [*images], [None], vectors, [_about(images[0], error)])
        else:
            count, vectors = len(images), np.array([one["vector"] for one in found], np.float32)
            yield Rows(count, [*images], [None] * count, vectors, [None] * count)

    def _answers(
        self,
        path: str,
        kind: type[_Answer],
        images: Sequence[str],
        examples: Sequence[File] = (),
        *,
        progress: bool = False,
        **options: Any,
    ) -> list[_Answer]:
        """Return answers on images under their paths, or the service's names if it answers for each face."""
        found: list[dict[str, Any]] = []
        with progress_bar("Classifying", len(images), show=progress) as advance:
            for batch in _batches(images):
                found += self._post(path, [*examples, *batch], **options)
                advance(len(batch))
        names = images if len(found) == len(images) else [one["image"] for one in found]
        return [
            kind(
                image=name,
                label=one["label"],
                probability=one["probability"],
                distance=math.inf if one["distance"] is None else one["distance"],
                threshold=math.inf if one["threshold"] is None else one["threshold"],
                nearest=one["nearest"] and one["nearest"]["label"],
                box=one.get("box"),
            )
            for one, name in zip(found, names, strict=True)
        ]

    # ---- gallery

    def identify(self, images: Sequence[str], **options: Any) -> list[Identification]:
        """Identify images."""
        return self._answers("/v1/identify", Identification, images, **options)

    def search(self, image: str, k: int, **options: Any) -> list[Hit]:
        """Find the enrolled images that are most similar, nearest first."""
        return [_hit(one) for one in self._post("/v1/search", [_read(image, "image")], k=k, **options)]

    def add(
        self,
        images: Sequence[Any],
        labels: Sequence[str | None],
        *,
        metadata: Sequence[Mapping[str, Any]],
        progress: bool = True,
    ) -> Added:
        """Enroll image files."""
        stored = skipped = 0
        ids: list[str | None] = []
        unreadable: list[ImageError] = []
        rows = zip(images, labels, (json.dumps(one) for one in metadata), strict=True)
        with progress_bar("Enrolling", len(images), show=progress) as advance:
            for (label, data), group in groupby(rows, key=lambda row: row[1:]):
                for batch in _batches([row[0] for row in group], unreadable):
                    try:
                        found = self._post("/v1/gallery", batch, label=label, metadata=data)
                    except DataError as error:  # none of these images can be read
                        unreadable += [_about(name, error) for _, (name, _) in batch]
                        continue
                    stored, skipped = stored + found["stored"], skipped + found["skipped"]
                    ids += found["ids"]
                    unreadable += [ImageError(*text.split(": ", 1)) for text in found["unreadable"]]
                    advance(len(batch))
        return Added(ids, stored, skipped, unreadable)

    def list(self, *, label: Sequence[str] | None, where: Mapping[str, Any]) -> Page:
        """List the enrolled images, of one label or all."""
        _unsupported("--where", where)
        _unsupported("more than one --label", (label or [])[1:])
        params: dict[str, Any] = {"limit": _PAGE, "label": label[0] if label else None}
        found = self._ask("GET", "/v1/gallery", params=params)
        items = list(found["items"])
        while found["after"] is not None:
            found = self._ask("GET", "/v1/gallery", params=params | {"after": found["after"]})
            items += found["items"]
        return Page(found["count"], [Record(**one) for one in items], None)

    def count(self, *, label: Sequence[str] | None = None, where: Mapping[str, Any] | None = None) -> int:
        """Count the enrolled images."""
        _unsupported("--where", where)
        found = self._ask("GET", "/v1/gallery/labels")
        return int(sum(found["labels"].get(name, 0) for name in label) if label else found["count"])

    def labels(self, *, where: Mapping[str, Any]) -> dict[str, int]:
        """Count the images of each label."""
        _unsupported("--where", where)
        return dict(self._ask("GET", "/v1/gallery/labels")["labels"])

    def duplicates(self, within: float | None = None) -> _Groups:
        """Find groups of near-duplicates."""
        groups = self._ask("GET", "/v1/gallery/duplicates", params={"within": within})
        return [[_hit(one) for one in group] for group in groups]

    def remove(self, ids: Sequence[str] | None, *, label: str | None) -> _Removed:
        """Remove images by id, or all images of a label."""
        if (ids is None) == (label is None):
            raise SettingError("remove requires either ids or a label")
        if label is not None:
            answers = [self._ask("DELETE", "/v1/gallery", params={"label": label})]
        else:
            answers = [self._ask("DELETE", _path_of(one)) for one in ids or []]
        return _Removed(range(sum(answer["removed"] for answer in answers)))

    def update(self, id: str, *, label: str | None, metadata: Mapping[str, Any] | None) -> None:
        """Change the label or metadata of an image."""
        self._ask("PATCH", _path_of(id), json={"label": label, "metadata": metadata})

    def rename(self, label: str, new: str) -> int:
        """Rename a label, or merge it into another; return the number of images changed."""
        return int(self._ask("POST", "/v1/gallery/rename", json={"label": label, "new": new})["updated"])

    def _post(self, path: str, files: Sequence[File], **options: Any) -> Any:
        """Send files, options and the faces to use as a form; options without a value are left out."""
        fields: list[tuple[str, str]] = []
        for name, value in {**options, "faces": self._faces}.items():
            if isinstance(value, list):
                fields += [(name, one) for one in value]
            elif value is not None and value != {}:
                fields.append((name, value if isinstance(value, str) else json.dumps(value)))
        return self._ask("POST", path, files=files, data=fields)

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of a response."""
        try:
            answer = self._session.request(
                method, self._url + path, timeout=_SECONDS, allow_redirects=False, **options
            )
            found = answer.json()
        except requests.JSONDecodeError:
            raise GalleryError(f"{self._url}: this is not a service of Twinned") from None
        except requests.RequestException as error:
            reason = type(error).__name__
            raise GalleryError(
                f"{self._url}: no service answers ({reason}). Start one: twinned serve"
            ) from None
        if answer.status_code >= 300:
            detail = str(found.get("detail") if isinstance(found, dict) else found)
            if answer.status_code == 401:
                detail = f"{detail.partition('. ')[0]}. Set the environment variable TWINNED_TOKEN"
            raise DataError(detail) if answer.status_code == 422 else GalleryError(f"{self._url}: {detail}")
        return found


def _hit(found: dict[str, Any]) -> Hit:
    return Hit(found["id"], found["label"], found["image"], distance=found["distance"])


def _about(image: str, error: DataError) -> ImageError:
    """Return the error of a request as that of its only image."""
    return ImageError(image, str(error).removeprefix(f"{os.path.basename(image)}: "))


def _path_of(id: str) -> str:
    return f"/v1/gallery/{quote(id, safe='')}"


def _unsupported(what: str, value: Any) -> None:
    if value:
        raise SettingError(f"{what} is not supported together with --url")


def _size(files: Sequence[File]) -> int:
    return sum(len(content) for _, (_, content) in files)


def _read(image: Any, field: str = "images") -> File:
    """Read an image file for a field of a form."""
    try:
        return field, (os.path.basename(image), Path(image).read_bytes())
    except OSError as error:
        raise ImageError(str(image), error.strerror or str(error)) from None


def _batches(images: Sequence[Any], unreadable: list[ImageError] | None = None) -> Iterator[list[File]]:
    """Read images in batches of one request; with a list, collect the errors of files that cannot be read."""
    batch: list[File] = []
    for image in images:
        try:
            file = _read(image)
        except ImageError as error:
            if unreadable is None:
                raise
            unreadable.append(error)
            continue
        if batch and (len(batch) == _MAX_IMAGES or _size([*batch, file]) > _MAX_BYTES):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch
