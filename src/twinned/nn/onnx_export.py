"""Export a trained network to ONNX, from pixels to embeddings, and compare it with PyTorch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data.preprocessing import ImageSpec
from ..errors import MissingExtra, TwinnedError
from .heads import Distance, Relation
from .siamese import SiameseNetwork

OPSET = 18
# Largest difference between ONNX Runtime and PyTorch, relative to the largest absolute value or 1.
TOLERANCE = 1e-4
_BATCH = 3  # images at export


class ExportError(TwinnedError):
    """Exported graph that accepts one batch size only, or whose results differ from those of PyTorch."""


class PixelEncoder(nn.Module):
    """Content of encoder.onnx: pixel normalization and the encoder."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: SiameseNetwork, spec: ImageSpec) -> None:
        super().__init__()
        self.network, self.encoder = network, network.encoder
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("scale", (1 / (255 * std)).view(-1, 1, 1))
        self.register_buffer("shift", (-mean / std).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Convert uint8 ``(n, height, width, channels)`` to embeddings ``(n, d)`` and last feature maps.

        An encoder without feature maps returns the embeddings alone.
        """
        x = pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift
        if self.encoder.symmetric:  # both in one batch, so that the graph holds each layer once
            values, maps = self.encoder.forward_features(torch.cat([x, x.flip(3)]))
            n = x.shape[0]  # not len(), which would fix it
            values, maps = values.view(2, n, -1).mean(0), maps[:n]
        else:
            values, maps = self.encoder.forward_features(x)
        embedding = self.network.postprocess(self.encoder.project(values))
        return (embedding, maps) if self.encoder.has_maps else embedding


class _Score(nn.Module):
    def __init__(self, network: SiameseNetwork) -> None:
        super().__init__()
        self.head = network.head

    def forward(self, left: Tensor, right: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        score: Tensor = 1 - self.head(left, right)
        if isinstance(self.head, Relation):
            return score, self.head.probabilities(left, right)
        return score


def export_encoder(network: SiameseNetwork, spec: ImageSpec, path: Path) -> None:
    """Write encoder.onnx: uint8 ``(n, height, width, channels)`` with any n to embeddings ``(n, d)``.

    The second output is the last feature map, if the encoder has one; `twinned.inference.explain` uses it.
    """
    module = PixelEncoder(network, spec).cpu().eval()
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (_BATCH, *spec.shape), dtype=np.uint8))
    outputs = ["embedding", "features"] if network.encoder.has_maps else ["embedding"]
    _export(module, {"pixels": pixels}, path, outputs)


def export_head(network: SiameseNetwork, path: Path) -> bool:
    """Write the head.onnx of a learned head: two embeddings ``(n, d)`` to a score ``(n,)``.

    A relation head has the probabilities of the relations, ``(n, relations)``, as a second output. Returns
    False for a plain head, which needs no file.
    """
    if isinstance(network.head, Distance):
        return False
    module = _Score(network).cpu().eval()
    outputs = ["score", "relations"] if isinstance(network.head, Relation) else ["score"]
    left, right = torch.rand(2, _BATCH, network.embedding_size, generator=torch.Generator().manual_seed(0))
    _export(module, {"left": left, "right": right}, path, outputs)
    return True


def _export(module: nn.Module, example: dict[str, Tensor], path: Path, outputs: list[str]) -> None:
    """Write the graph of a module with any batch size, and compare its results with the module's."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401 - the exporter fails with a traceback without it
    except ModuleNotFoundError:
        raise MissingExtra("train", "writing ONNX files") from None
    batch = torch.export.Dim("n")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            module,
            tuple(example.values()),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(example),
            output_names=outputs,
            dynamic_shapes=tuple({0: batch} for _ in example),
            external_data=False,
            verbose=False,
        )
    _remove_metadata(path)
    _compare_with_pytorch(module, {name: value[1:] for name, value in example.items()}, path)


def _remove_metadata(path: Path) -> None:
    """Remove the exporter's metadata: its stack traces contain local paths."""
    import onnx

    model = onnx.load(str(path))
    del model.metadata_props[:]
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    onnx.save(model, str(path))


def _compare_with_pytorch(module: nn.Module, inputs: dict[str, Tensor], path: Path) -> None:
    """Compare the results for another batch size than at export."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    try:
        theirs = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    except Exception as error:  # ONNX Runtime has no public base class of its errors
        raise ExportError(
            f"{path.name} computes batches of {_BATCH} images only, the size at export. The network must not"
            " convert the size of a batch to a number: use x.flatten(1) or x.shape[0], without int()"
        ) from error
    with torch.no_grad():
        found = module(*inputs.values())
    for mine, other in zip(found if isinstance(found, tuple) else (found,), theirs, strict=True):
        ours = mine.numpy()
        difference = float(np.abs(ours - other).max() / max(1.0, float(np.abs(ours).max())))
        if not difference <= TOLERANCE:
            raise ExportError(f"{path.name}: ONNX Runtime differs from PyTorch by {difference:g}")
