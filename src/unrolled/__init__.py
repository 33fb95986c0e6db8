"""Recurrent networks, unrolled through time: any cell, any depth, either direction, on torch alone.

Names are imported on first use. `import unrolled` is therefore fast, and a command line is checked before torch is
imported.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from unrolled.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = "0.1.0"

# A wheel contains the configuration inside the package, as unrolled/conf. In a working copy the folder is at the top
# level. The name unrolled.conf refers to it in both. `__path__` is not changed: otherwise everything beside conf would
# be code of this package, which a checkpoint may name.
_conf = Path(__file__).resolve().parents[2] / "conf" / "__init__.py"
if _conf.is_file() and (_conf.parents[1] / "pyproject.toml").is_file():
    _spec = spec_from_file_location("unrolled.conf", _conf, submodule_search_locations=[str(_conf.parent)])
    if _spec is not None:
        sys.modules["unrolled.conf"] = module_from_spec(_spec)
