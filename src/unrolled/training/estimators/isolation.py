"""Training inside a user's process: what it changes of the process is restored."""

import os
import random
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from hydra.core.global_hydra import GlobalHydra
from lightning.fabric.utilities.warnings import PossibleUserWarning

from unrolled.training.run.quiet import quiet

_LOCK = threading.RLock()  # generators and settings belong to the process, so fits in threads take turns


@contextmanager
def isolated() -> Generator[None]:
    """Restores random generators, settings of torch, the environment and Hydra's state after the context.

    Gradients are computed inside, also if they are off outside. Lightning's messages and warnings are hidden.
    """
    with _LOCK, torch.random.fork_rng(devices=_devices()), _settings(), quiet():
        states = random.getstate(), np.random.get_state(), dict(os.environ), GlobalHydra.instance().hydra
        warnings.filterwarnings("ignore", module=r"lightning\.")
        warnings.simplefilter("ignore", PossibleUserWarning)  # advice on loaders, attributed to any module
        try:
            with torch.inference_mode(False), torch.enable_grad():
                yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            _restore_environment(states[2])
            GlobalHydra.instance().hydra = states[3]


def _devices() -> list[int]:
    """Returns the GPUs whose generators may be used."""
    return list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []


@contextmanager
def _settings() -> Generator[None]:
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    precision = torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn: Any = torch.backends.cudnn
    kernels = cudnn.benchmark, cudnn.deterministic
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        cudnn.benchmark, cudnn.deterministic = kernels


def _restore_environment(before: dict[str, str]) -> None:
    for name in set(os.environ) - set(before):
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
