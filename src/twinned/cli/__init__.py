"""The command line: `main` is the program ``twinned``; its module lists the modules of the commands."""

from .main import main

__all__ = ["main"]
