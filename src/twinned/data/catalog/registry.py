"""Table of the public data sets that can be fetched by name: owner, files, terms and conversion.

Checksums are those that others publish: TensorFlow Datasets and scikit-learn for Omniglot, Fashion-MNIST and
LFW, one public project for CEDAR. `twinned.data.catalog.download` stores the checksums of other files when it
first downloads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import SettingError
from . import convert

MB = 1 << 20


@dataclass(frozen=True)
class Download:
    """File to download.

    Args:
        addresses: URLs of the file, the owner's first.
        max_bytes: Maximum size of the file.
        sha256: Published SHA-256; None if there is none.
    """

    addresses: tuple[str, ...]
    max_bytes: int
    sha256: str | None = None

    @property
    def file(self) -> str:
        """File name."""
        return self.addresses[0].rsplit("/", 1)[1]


@dataclass(frozen=True)
class DataSet:
    """Public data set.

    Args:
        name: Name for `twinned data get`.
        title: Full name and content.
        terms: License, or the conditions of the owner.
        page: URL of the owner's page.
        downloads: Files to download.
        local: Names of files and folders that can be a local copy.
        rules: Pattern of a path inside an archive, and the path to write. Other files are not unpacked, and
            written paths consist only of groups of the pattern and constants.
        images: Number of images.
        max_bytes: Maximum total size of the unpacked files.
        use: Paths below the folder to train on.
        finish: Conversion of the unpacked folder, if it needs one.
    """

    name: str
    title: str
    terms: str
    page: str
    downloads: tuple[Download, ...]
    local: tuple[str, ...]
    rules: tuple[tuple[str, str], ...]
    images: int
    max_bytes: int
    use: tuple[str, ...] = ("",)
    finish: Callable[[Path], None] | None = None

    def place(self, name: str) -> str | None:
        """Return the path below the folder for a file of an archive; None to skip the file."""
        for pattern, path in self.rules:
            if (found := re.search(rf"(?:^|/){pattern}$", name.replace("\\", "/"))) is not None:
                return found.expand(path)
        return None


_LAKE = "https://github.com/brendenlake/omniglot/raw/master/python/"
_ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_LFW, _LFW_COPY = "http://vis-www.cs.umass.edu/lfw/", "https://ndownloader.figshare.com/files/"
_WORD = r"[\w(][\w()'.-]*"  # does not start with a dot, so it is never ..

DATA_SETS: dict[str, DataSet] = {
    "orl": DataSet(
        name="orl",
        title="ORL / AT&T faces: 40 people, 10 gray photographs each, 92x112",
        terms="free to use; give credit to the Olivetti Research Laboratory (AT&T Laboratories Cambridge)",
        page="https://cam-orl.co.uk/facedatabase.html",
        downloads=(
            Download(
                ("https://www.cl.cam.ac.uk/research/dtg/attarchive/pub/data/att_faces.zip",),
                max_bytes=16 * MB,
            ),
        ),
        local=("orl_faces.zip", "att_faces.zip", "orl_faces", "att_faces", "orl"),
        rules=((r"(s\d{1,2}/\d{1,2}\.pgm)", r"\1"),),
        images=400,
        max_bytes=32 * MB,
    ),
    "cedar": DataSet(
        name="cedar",
        title="CEDAR signatures: 55 writers, 24 genuine and 24 forged each, as scanned",
        terms="published for research; the page states no license",
        page="https://cedar.buffalo.edu/NIJ/publications.html",
        downloads=(
            Download(
                ("https://cedar.buffalo.edu/NIJ/data/signatures.rar",),
                max_bytes=300 * MB,
                sha256="f74b859352783b82399c1be48078b79ad637160ba11f16baf92911dd5568f4d6",
            ),
        ),
        local=("cedar_signatures.zip", "cedar_signatures", "signatures.rar", "signatures", "cedar"),
        rules=((r"(full_org/original_\d+_\d+\.png|full_forg/forgeries_\d+_\d+\.png)", r"\1"),),
        images=2640,
        max_bytes=600 * MB,
        finish=convert.list_signatures,
    ),
    "lfw": DataSet(
        name="lfw",
        title="Labeled Faces in the Wild: 5,749 people, 13,233 photographs, with the official pairs",
        terms="for research; press photographs of other rights holders",
        page="http://vis-www.cs.umass.edu/lfw/",
        downloads=(
            Download(
                (_LFW + "lfw-funneled.tgz", _LFW_COPY + "5976015"),
                max_bytes=300 * MB,
                sha256="b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
            ),
            Download(
                (_LFW + "pairs.txt", _LFW_COPY + "5976006"),
                max_bytes=MB,
                sha256="ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592",
            ),
            Download(
                (_LFW + "pairsDevTrain.txt", _LFW_COPY + "5976012"),
                max_bytes=MB,
                sha256="1d454dada7dfeca0e7eab6f65dc4e97a6312d44cf142207be28d688be92aabfa",
            ),
            Download(
                (_LFW + "pairsDevTest.txt", _LFW_COPY + "5976009"),
                max_bytes=MB,
                sha256="7cb06600ea8b2814ac26e946201cdb304296262aad67d046a16a7ec85d0ff87c",
            ),
        ),
        local=("lfw_crop96.zip", "lfw_crop96", "lfw_protocol", "lfw-funneled.tgz", "lfw_funneled", "lfw"),
        rules=(
            (rf"(({_WORD})/\2_\d{{4}}\.jpg)", r"\1"),
            (r"(pairs|pairsDevTrain|pairsDevTest|people)\.txt", r"\1.txt"),
        ),
        images=13233,
        max_bytes=600 * MB,
    ),
    "omniglot": DataSet(
        name="omniglot",
        title="Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings each, and the 20 runs",
        terms="MIT license; cite Lake, Salakhutdinov & Tenenbaum, Science 2015",
        page="https://github.com/brendenlake/omniglot",
        downloads=tuple(
            Download((_LAKE + file,), max_bytes=16 * MB, sha256=sha256)
            for file, sha256 in (
                (
                    "images_background.zip",
                    "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
                ),
                (
                    "images_background_small1.zip",
                    "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
                ),
                (
                    "images_background_small2.zip",
                    "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
                ),
                (
                    "images_evaluation.zip",
                    "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
                ),
                ("one-shot-classification/all_runs.zip", None),
            )
        ),
        local=(
            *("omniglot", "images_background.zip", "images_background_small1.zip", "all_runs.zip"),
            *("images_background_small2.zip", "images_evaluation.zip"),
            *("images_background", "images_background_small1", "images_background_small2"),
            *("images_evaluation", "all_runs"),
        ),
        rules=(
            (
                rf"(images_(?:background|background_small1|background_small2|evaluation)/{_WORD}"
                r"/character\d\d/\d{4}_\d\d\.png)",
                r"\1",
            ),
            (
                r"(run\d\d/(?:class_labels\.txt|test/item\d\d\.png|training/class\d\d\.png))",
                r"all_runs/\1",
            ),
        ),
        images=39100,
        max_bytes=64 * MB,
        use=(
            "images_background",
            "images_background_small1",
            "images_background_small2",
            "images_evaluation",
        ),
    ),
    "fashion-mnist": DataSet(
        name="fashion-mnist",
        title="Fashion-MNIST: 70,000 gray pictures of clothes in 10 classes, 28x28",
        terms="MIT license, Zalando SE; cite Xiao, Rasul & Vollgraf 2017",
        page="https://github.com/zalandoresearch/fashion-mnist",
        downloads=tuple(
            Download((_ZALANDO + file,), max_bytes=32 * MB, sha256=sha256)
            for file, sha256 in (
                (
                    "train-images-idx3-ubyte.gz",
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                ),
                (
                    "train-labels-idx1-ubyte.gz",
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                ),
                (
                    "t10k-images-idx3-ubyte.gz",
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                ),
                (
                    "t10k-labels-idx1-ubyte.gz",
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
            )
        ),
        local=("fashion-mnist", "fashion_mnist", "FashionMNIST"),
        rules=((r"((?:train|t10k)-(?:images-idx3|labels-idx1)-ubyte)(\.gz)?", r"idx/\1\2"),),
        images=70000,
        max_bytes=128 * MB,
        finish=convert.clothes,
    ),
}


def named(name: str) -> DataSet:
    """Return the data set with the given name.

    Raises:
        SettingError: If the name is unknown; the message lists the known names.
    """
    try:
        return DATA_SETS[name]
    except KeyError:
        raise SettingError(
            f"Unknown data set {name!r}. Choose one of {', '.join((*DATA_SETS, 'digits'))}."
        ) from None
