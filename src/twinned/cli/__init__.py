"""The command line. `main` is the program ``twinned``.

app         the program: options that all share, errors, output
learning    check, train, calibrate, finetune, wrap, export, demo
datasets    data list, data get
using       verify, classify, embed, evaluate
galleries   gallery ..., identify, search
pictures    plot ..., explain
serving     serve
"""

from .main import main

__all__ = ["main"]
