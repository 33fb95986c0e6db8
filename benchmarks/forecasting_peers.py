"""ETTh1 with the recurrent forecasters of Darts, which lives in an environment of its own.

    python -m venv darts && darts/bin/pip install 'u8darts[torch]'
    darts/bin/python benchmarks/forecasting_peers.py ETTh1.csv --model BlockRNNModel --horizon 96 --minutes 10

Split, scaling and windows are those of experiment=forecasting/etth1: 12, 4 and 4 months of 30 days, standardized on the
training split, a forecast from each step of the test. Training ends after so many minutes of processor time, on one
thread, and the weights with the lowest validation loss are scored. Reversible instance normalization is on, since
without it both are far behind; each column is a series of its own, as for SegRNN, or all are one (--together).
"""

import argparse
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import darts.models
import numpy as np
import torch
from darts import TimeSeries
from pytorch_lightning import Callback

ENDS = (8640, 11520, 14400)  # of training, validation and test
warnings.filterwarnings("ignore")


class Limit(Callback):
    """Ends training at some processor time, in seconds."""

    def __init__(self, end: float) -> None:
        self.end = end

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = time.process_time() > self.end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", choices=("BlockRNNModel", "RNNModel"), default="BlockRNNModel")
    parser.add_argument("--cell", choices=("LSTM", "GRU", "RNN"), default="GRU")
    parser.add_argument("--horizon", type=int, default=96)
    parser.add_argument("--context", type=int, default=336)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--stride", type=int, default=1, help="steps from one test forecast to the next")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.process_time()
    values = standardized(options.file)
    model, epochs = trained(options, values, begin)
    minutes = (time.process_time() - begin) / 60
    errors = np.concatenate([forecast - truth for forecast, truth in forecasts(options, model, values)])
    print("| model | MSE | MAE | forecasts | epochs | minutes of training |\n|---|---|---|---|---|---|")
    name = f"{options.model}, {options.cell}, {'together' if options.together else 'apart'}"
    scores = f"{np.square(errors).mean():.4f} | {np.abs(errors).mean():.4f}"
    print(f"| {name} | {scores} | {len(errors):,} | {epochs} | {minutes:.1f} |")


def standardized(file: Path) -> np.ndarray[Any, Any]:
    values = np.genfromtxt(file, delimiter=",", skip_header=1, usecols=range(1, 8))[: ENDS[-1]]
    train = values[: ENDS[0]]
    return ((values - train.mean(0)) / train.std(0)).astype(np.float32)


def series(options: argparse.Namespace, values: np.ndarray[Any, Any]) -> list[Any]:
    parts = [values] if options.together else [values[:, [column]] for column in range(values.shape[1])]
    return [TimeSeries.from_values(part) for part in parts]


def trained(options: argparse.Namespace, values: np.ndarray[Any, Any], begin: float) -> tuple[Any, int]:
    settings: dict[str, Any] = {
        "model": options.cell,
        "input_chunk_length": options.context,
        "hidden_dim": options.hidden_size,
        "dropout": options.dropout,
        "batch_size": options.batch_size,
        "n_epochs": 1000,
        "optimizer_kwargs": {"lr": options.lr},
        "random_state": options.seed,
        "use_reversible_instance_norm": True,
        "save_checkpoints": True,
        "force_reset": True,
        "model_name": "peer",
        "pl_trainer_kwargs": {
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "callbacks": [Limit(begin + 60 * options.minutes)],
            "gradient_clip_val": 1.0,
        },
    }
    length = options.context + options.horizon
    own = {"training_length": length} if options.model == "RNNModel" else {"output_chunk_length": options.horizon}
    with TemporaryDirectory() as folder:
        model = getattr(darts.models, options.model)(**settings, **own, work_dir=folder)
        train = series(options, values[: ENDS[0]])
        validation = series(options, values[ENDS[0] - options.context : ENDS[1]])
        model.fit(train, val_series=validation, verbose=False)
        epochs = model.epochs_trained
        best = type(model).load_from_checkpoint("peer", work_dir=folder, best=True)
    return best, epochs


def forecasts(options: argparse.Namespace, model: Any, values: np.ndarray[Any, Any]) -> Any:
    """Yields forecasts and the numbers that came, (windows, horizon, columns), of each series."""
    last = ENDS[2] - options.horizon
    for whole in series(options, values):
        numbers = whole.values()
        for first in range(ENDS[1], last + 1, 256 * options.stride):
            origins = list(range(first, min(first + 256 * options.stride, last + 1), options.stride))
            pasts = [whole[origin - options.context : origin] for origin in origins]
            found = model.predict(options.horizon, series=pasts, verbose=False, batch_size=256)
            truth = np.stack([numbers[origin : origin + options.horizon] for origin in origins])
            yield np.stack([each.values() for each in found]), truth


if __name__ == "__main__":
    main()
