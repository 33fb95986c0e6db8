"""Silence for what exporting to ONNX logs and warns about itself."""

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def quiet() -> Generator[None]:
    """Silence the exporter and onnxruntime's quantization, which logs to the root logger."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", None)]
    levels = [logger.level for logger in loggers]
    handler = logging.NullHandler()  # without any, `logging.warning` would configure one that stays
    logging.getLogger().addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().removeHandler(handler)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
