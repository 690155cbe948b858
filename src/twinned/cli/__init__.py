"""The command line: `main` runs ``twinned``; `twinned.cli.main` lists the modules of its commands."""

from .main import main

__all__ = ["main"]
