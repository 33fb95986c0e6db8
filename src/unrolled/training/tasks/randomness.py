"""States of all random generators as plain types, so that a resumed run draws the same numbers."""

import random
from typing import Any

import numpy
import torch


def get_rng_states() -> dict[str, Any]:
    """Returns the states of Python, NumPy, torch and each CUDA device, as lists, numbers and tensors."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = numpy.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_states(saved: dict[str, Any]) -> None:
    """Restores the result of `get_rng_states`. CUDA states are ignored if the number of devices differs."""
    version, numbers, gauss = saved["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = saved["numpy"]
    numpy.random.set_state((name, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(saved["torch"].cpu())
    if saved["cuda"] and len(saved["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(saved["cuda"])
