"""Hydra's plugins of the package; Hydra looks for them in this namespace alone."""

from unrolled.training.run import optuna_sweeper, slurm_launcher


class OptunaSweeper(optuna_sweeper.OptunaSweeper):
    """`hydra/sweeper=optuna`."""


class SLURMLauncher(slurm_launcher.SLURMLauncher):
    """`hydra/launcher=slurm`."""
