"""Faces in photographs, public as `twinned.faces`.

`detect` finds them, `align` turns and scales one, `crop` does so with those of a folder. All need the extra
``faces``: dlib's openly licensed models, which are converted on first use and run by ONNX Runtime and NumPy.
"""

from .cropping import Crops, crop
from .detector import Face
from .photographs import align, detect

__all__ = ["Crops", "Face", "align", "crop", "detect"]
