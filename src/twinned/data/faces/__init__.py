"""Faces in photographs, public as `twinned.faces`: `detect` finds them, `align` turns and scales them.

Both need the extra ``faces``: dlib's openly licensed models, which are converted on first use and run by ONNX
Runtime and NumPy.
"""

from .detector import Face
from .photographs import align, detect

__all__ = ["Face", "align", "detect"]
