"""Recurrent networks, unrolled through time: any cell, any depth, either direction, on torch alone.

Names load on first use, so that `import unrolled` costs nothing and a command line can be checked before torch is.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from unrolled.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = "0.1.0"

# A wheel carries the configuration inside the package, as unrolled/conf. In a working copy it lies at the top level,
# where people look for it. This one name is made to mean the same in both; `__path__` stays as it is, or whatever lies
# beside conf would count as code of this package, which a checkpoint may name.
_conf = Path(__file__).resolve().parents[2] / "conf" / "__init__.py"
if _conf.is_file() and (_conf.parents[1] / "pyproject.toml").is_file():
    _spec = spec_from_file_location("unrolled.conf", _conf, submodule_search_locations=[str(_conf.parent)])
    if _spec is not None:
        sys.modules["unrolled.conf"] = module_from_spec(_spec)
