"""Parts of a run from the configuration, with errors that name the place in it."""

from typing import Any, cast

from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from unrolled.descriptions import build
from unrolled.training.configuration.options import ConfigurationError


def instantiate(config: DictConfig, path: str, **arguments: Any) -> Any:
    """Builds what a node of the configuration describes; None for an empty one.

    Raises:
        ConfigurationError: names the node.
    """
    node = OmegaConf.select(config, path)
    if not node:  # null, or a choice such as none whose file is empty
        return None
    try:
        plain = plain_values(node)
        if not arguments:
            return build(plain)
        # Values from a checkpoint are passed unchanged: if they were built with the rest, they could name any code.
        return build({**plain, "_partial_": True})(**arguments)
    except InterpolationKeyError as error:  # a choice for one task used with another task
        message = str(error).splitlines()[0]
        raise ConfigurationError(f"{path}: {message}; is it a choice for another task? Name that, task=…") from error
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def plain_values(node: DictConfig) -> dict[str, Any]:
    """Returns a node with all interpolations resolved."""
    return cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True))
