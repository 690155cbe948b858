"""Options of `twinned.wrap` on the encoder's input, for Python and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, TypedDict

from ..utils.options import Option

_input = partial(Option, "Input")


class InputOptions(TypedDict, total=False):
    """Input of an ONNX encoder, as far as its file leaves it open; missing options are inferred."""

    layout: Annotated[
        str | None, _input("Order of the input's axes: nchw (PyTorch) or nhwc (TensorFlow, JAX)")
    ]
    scale: Annotated[
        float | None,
        _input(
            "Factor for pixel values, which are 0 to 255, before the mean is subtracted (default: 1/255, or 1"
            " for a mean above 1)"
        ),
    ]
    mean: Annotated[
        float | Sequence[float] | None,
        _input(
            "Value subtracted from scaled pixels; one, or one per channel, such as 0.5,0.5,0.5", str | None
        ),
    ]
    std: Annotated[
        float | Sequence[float] | None,
        _input(
            "Divisor of scaled pixels after the mean; one, or one per channel, such as 0.5,0.5,0.5",
            str | None,
        ),
    ]
    image_size: Annotated[
        str | int | tuple[int, int] | None,
        _input("Height and width of the input, HxW, for an encoder that accepts any", str | None),
    ]
    channels: Annotated[int | None, _input("Input channels, 1 or 3, for an encoder that accepts any")]
    fit: Annotated[
        str,
        _input("Handling of images with another aspect ratio: stretch, pad or crop", default="stretch"),
    ]
