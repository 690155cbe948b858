"""The command line. `main` is the program ``twinned``.

main        program, errors, exit codes
options     options, arguments and output that commands share
train       train, finetune, wrap, calibrate, export
data        check, data list, data get
demo        demo
predict     verify, classify, embed, evaluate, compare
gallery     gallery ..., identify, search
plot        plot ..., explain
serve       serve
"""

from .main import main

__all__ = ["main"]
