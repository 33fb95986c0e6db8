# The public names, each with the module that defines it: __init__.py reads this file, and so do type checkers.

from unrolled.training.run.composition import compose as compose
from unrolled.training.run.runner import run as run
from unrolled.training.run.runner import score as score

__all__: list[str]
