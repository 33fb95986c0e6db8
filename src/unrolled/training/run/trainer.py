"""The Trainer of a run: what Lightning would refuse late or hide is refused here."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from unrolled.training.callbacks.interruption import Interruption
from unrolled.training.configuration.options import ConfigurationError
from unrolled.training.run.environment import check_processes, cluster_environment, set_timeout
from unrolled.training.run.instantiate import instantiate, plain_values
from unrolled.training.run.storage import DurableCheckpointIO

_log = logging.getLogger(__name__)


def create_trainer(config: DictConfig, callbacks: list[Callback], loggers: list[Logger]) -> Trainer:
    """Builds Lightning's Trainer with the environment of the cluster and checkpoints that survive a crash.

    Raises:
        ConfigurationError: devices, processes, strategy or precision that this machine or this package cannot serve.
    """
    arguments = plain_values(config.trainer)
    _check_strategy(arguments.get("strategy"))
    if isinstance(arguments.get("strategy"), Mapping):
        arguments["strategy"] = instantiate(config, "trainer.strategy")
    # Lightning refuses these switches together with callbacks of the kind, so such callbacks are removed.
    switches = {"enable_progress_bar": ProgressBar, "enable_checkpointing": Checkpoint}
    unwanted = tuple(kind for name, kind in switches.items() if arguments.get(name) is False)
    plugins: list[Any] = [*(arguments.pop("plugins", None) or []), DurableCheckpointIO()]
    environment = cluster_environment(int(arguments.get("num_nodes") or 1))
    plugins += [] if environment is None else [environment]
    wanted = [callback for callback in callbacks if not isinstance(callback, unwanted)]
    if not any(isinstance(callback, Interruption) for callback in wanted):
        wanted.append(Interruption())
    try:
        trainer = Trainer(
            **arguments,
            callbacks=wanted,
            plugins=plugins,
            logger=loggers or False,
            default_root_dir=config.run_dir,
            use_distributed_sampler=False,  # plans of the data split by rank themselves
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        if arguments.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
            raise ConfigurationError(
                f"trainer.accelerator={arguments['accelerator']}: torch finds no GPU on this machine; trainer=cpu "
                "takes the processor, trainer=auto whatever there is"
            ) from error
        raise ConfigurationError(f"trainer: {error}") from error
    check_processes(trainer)
    set_timeout(trainer, config.timeout)
    _check_precision(str(arguments.get("precision")), trainer)
    return trainer


def _check_strategy(strategy: Any) -> None:
    """Refuses FSDP1, which hides the norm of the gradient and the names of parameters."""
    if isinstance(strategy, str) and strategy.startswith("fsdp") and strategy != "fsdp2":
        raise ConfigurationError(
            f"trainer.strategy={strategy}: this is FSDP1, which PyTorch replaces; trainer=fsdp shards with FSDP2"
        )


def _check_precision(asked: str, trainer: Trainer) -> None:
    """Refuses float16 on a processor, which Lightning would replace silently."""
    if trainer.strategy.root_device.type != "cpu":
        return
    if asked in ("16", "16-mixed", "16-true"):
        raise ConfigurationError(
            f"trainer.precision={asked}: float16 is for GPUs; on a CPU choose bf16-mixed or 32-true"
        )
    if str(trainer.precision).startswith("bf16"):
        _warn_of_slow_bfloat16(str(trainer.precision))


def _warn_of_slow_bfloat16(precision: str) -> None:
    """Warns on a processor without bfloat16 instructions, where products are many times slower than in float32."""
    able = torch.cpu.get_capabilities()
    if able.get("architecture") == "x86_64" and not (able.get("avx512_bf16") or able.get("amx_bf16")):
        _log.warning(
            "trainer.precision=%s: this processor (%s) has no bfloat16 instructions and will be many times slower than "
            "with trainer.precision=32-true",
            precision,
            able.get("cpu_name", "x86_64"),
        )
