"""Hydra's plugins of the package; Hydra looks for them in this namespace alone."""

from unrolled.training.run import optuna_sweeper


class OptunaSweeper(optuna_sweeper.OptunaSweeper):
    """`hydra/sweeper=optuna`."""
