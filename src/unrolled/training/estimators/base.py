"""The base class of all estimators: parameters, training, persistence."""

import io
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from unrolled.backends.speeds import SPEEDS
from unrolled.checkpoint import KEY, Bundle, build_processor, content_of, load_bundle, save_bundle
from unrolled.descriptions import TRUSTED, build
from unrolled.training.estimators.training import Rows, train
from unrolled.wording import article

_DEVICES = {"auto": "auto", "cpu": "cpu", "cuda": "gpu", "gpu": "gpu", "mps": "mps"}
_LARGEST_SEED = 2**31 - 1
_BATCH = 256  # sequences of a prediction


class SequenceEstimator(BaseEstimator):
    """Trains a network of `unrolled` on sequences in memory.

    A subclass names its parameters in its constructor, as scikit-learn requires, and implements `fit` with `_train`.

    Attributes:
        bundle_: the trained network, its processor and information about its training, as `load_bundle` returns it.
        history_: for each epoch its mean loss and, with early stopping, the metrics of its validation.
        n_iter_: number of epochs.
        best_epoch_: the epoch whose weights were kept.
    """

    model: str
    hidden_size: int
    num_layers: int
    dropout: float
    max_epochs: int
    batch_size: int | str
    learning_rate: float
    weight_decay: float
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    device: str
    n_jobs: int | None
    overrides: Sequence[str]
    trusted: Sequence[str]
    random_state: Any
    verbose: int | bool

    bundle_: Bundle
    history_: list[dict[str, float]]
    n_iter_: int
    best_epoch_: int

    learned: ClassVar[tuple[str, ...]] = ("history_", "n_iter_", "best_epoch_")  # plain attributes that are saved
    kind: ClassVar[str] = ""  # the name of the task in `unrolled.fit`

    @abstractmethod
    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains the network."""

    @classmethod
    def with_parameters(cls, **parameters: Any) -> Self:
        """Returns an estimator with these parameters.

        Raises:
            ValueError: an unknown one.
        """
        known = cls._get_param_names()
        wrong = next((name for name in parameters if name not in known), None)
        if wrong is not None:
            near = get_close_matches(wrong, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise ValueError(f"{cls.__name__} takes no {wrong!r}{hint} It takes {', '.join(known)}")
        return cls(**parameters)

    @abstractmethod
    def _composed(self) -> list[str]:
        """Returns the configuration of the estimator's task, as on a command line."""

    def _train(
        self,
        rows: Rows,
        examples: int,
        overrides: Sequence[str] = (),
        *,
        validation_fraction: float | None = None,
        caches: bool = False,
    ) -> Self:
        """Trains on rows, and sets the fitted attributes.

        Args:
            rows: for each split that has its own, cells by column.
            examples: number of training examples, of which some are for validation.
            overrides: configuration that depends on the data.
            validation_fraction: share for validation; None for that of the parameters.
            caches: see `train`.
        """
        self._check()
        seed = int(check_random_state(self.random_state).randint(_LARGEST_SEED))
        share = self.validation_fraction if validation_fraction is None else validation_fraction
        held_out = round(examples * share) if self.early_stopping else 0
        found = train(
            [
                *self._composed(),
                *self._common(examples - held_out),
                f"data.split_fractions={[1 - share, share, 0] if held_out else [1, 0, 0]}",
                *self._stopping(validated=held_out > 0),
                *overrides,
                *self.overrides,
            ],
            rows,
            seed=seed,
            name=type(self).__name__,
            trusted=self._trusted(),
            shows_progress=bool(self.verbose),
            caches=caches,
        )
        self.bundle_ = found.bundle
        self.history_, self.n_iter_, self.best_epoch_ = found.history, len(found.history), found.best_epoch
        if self.verbose:
            self._report()
        return self

    def _check(self) -> None:
        """Checks the parameters that the configuration does not check.

        Raises:
            ValueError: names the parameter.
        """
        self._check_counts("hidden_size", "num_layers", "max_epochs", "n_iter_no_change")
        if self.batch_size != "auto" and (not isinstance(self.batch_size, int | np.integer) or self.batch_size < 1):
            raise ValueError(f"batch_size={self.batch_size!r} must be a whole number, 1 or more, or 'auto'")
        for name, low, high in (("dropout", 0, 1), ("validation_fraction", 0, 0.5)):
            if not low <= getattr(self, name) < high:
                raise ValueError(f"{name}={getattr(self, name)!r} must be {low} or more, and below {high}")
        if not self.learning_rate > 0 or self.weight_decay < 0:
            raise ValueError(
                f"learning_rate={self.learning_rate!r} must be above 0, weight_decay={self.weight_decay!r} 0 or more"
            )
        self._accelerator()
        if isinstance(self.overrides, str) or isinstance(self.trusted, str):
            raise ValueError("overrides and trusted are sequences of texts, such as overrides=['pooling=last']")

    def _check_counts(self, *names: str) -> None:
        """Checks that parameters are whole numbers, 1 or more.

        Raises:
            ValueError: names the parameter.
        """
        for name in names:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number, 1 or more")

    def _common(self, examples: int) -> list[str]:
        """Returns the configuration that all tasks have."""
        size = min(32, max(4, examples // 8)) if self.batch_size == "auto" else self.batch_size
        return [
            f"model={self.model}",
            f"data.batch_size={size}",
            f"optimizer.lr={float(self.learning_rate)!r}",
            f"optimizer.weight_decay={float(self.weight_decay)!r}",
            f"trainer.max_epochs={self.max_epochs}",
            f"threads={self._threads()}",
            *self._accelerator(),
        ]

    def _stopping(self, *, validated: bool) -> list[str]:
        if not validated:
            return ["callbacks.checkpoint=null"]
        return ["callbacks/early_stopping=patience", f"callbacks.early_stopping.patience={self.n_iter_no_change}"]

    def _accelerator(self) -> list[str]:
        """Returns the configuration of the device.

        Raises:
            ValueError: an unknown device.
        """
        kind, _, number = str(self.device).partition(":")
        if kind not in _DEVICES or (number and not number.isdigit()):
            raise ValueError(f"device={self.device!r} must be one of {', '.join(_DEVICES)}, or such as 'cuda:1'")
        return [f"trainer.accelerator={_DEVICES[kind]}", f"trainer.devices={f'[{number}]' if number else 1}"]

    def _threads(self) -> int:
        """Returns the number of threads that `n_jobs` means: None is one, -1 all, -2 all but one."""
        jobs: Any = 1 if self.n_jobs is None else self.n_jobs
        if isinstance(jobs, bool) or not isinstance(jobs, int | np.integer) or jobs == 0:
            raise ValueError(f"n_jobs={jobs!r} must be a number of threads, -1 for all, or None for one")
        return int(jobs) if jobs > 0 else max(1, torch.get_num_threads() + 1 + int(jobs))

    def _trusted(self) -> tuple[str, ...]:
        return (*TRUSTED, *(f"{package.rstrip('.')}." for package in self.trusted))

    def _report(self) -> None:
        best = self.history_[self.best_epoch_ - 1]
        numbers = ", ".join(
            f"{name.replace('_', ' ')} {value:.4g}" for name, value in best.items() if name.startswith("validation_")
        )
        of = f"epoch {self.best_epoch_} of {self.n_iter_}" + (f": {numbers}" if numbers else "")
        print(f"{type(self).__name__}: weights of {of}", flush=True)

    @contextmanager
    def _computing(self) -> Generator[None]:
        """Computes without gradients, with the estimator's number of threads, and with the same kernels every time."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self._threads())
        try:
            with torch.no_grad(), SPEEDS.run(measures=False):
                yield
        finally:
            torch.set_num_threads(threads)

    def _outputs(
        self, sequences: Sequence[Tensor], function: Callable[[Tensor, Tensor], Iterable[Tensor]]
    ) -> list[Any]:
        """Applies a function of a padded batch and its lengths, which returns a row for each sequence."""
        check_is_fitted(self, "bundle_")
        (network, (source, _), _), found = self.bundle_, list[Any]([None] * len(sequences))
        device = next(network.parameters()).device
        order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]))
        with self._computing():
            for begin in range(0, len(order), _BATCH):
                numbers = order[begin : begin + _BATCH]
                padded, lengths = source.collate([source.encode(sequences[number]) for number in numbers])
                for number, row in zip(numbers, function(padded.to(device), lengths), strict=True):
                    found[number] = row.tolist()
        return found

    def _described(self) -> Bundle:
        """Returns the bundle, with what the estimator has learned beside the network in its information."""
        check_is_fitted(self, "bundle_")
        own = {"class": type(self).__name__, "parameters": self._plain_parameters(), "learned": self._plain_learned()}
        return self.bundle_._replace(info={**self.bundle_.info, "estimator": own})

    def _plain_parameters(self) -> dict[str, Any]:
        """Returns the parameters; those that are no plain data, such as a generator, as None."""
        plain = (str, int, float, bool, list, tuple, type(None))
        return {
            name: value if isinstance(value, plain) else None for name, value in self.get_params(deep=False).items()
        }

    def _plain_learned(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in self.learned if hasattr(self, name)}
        return {name: _as_plain(value) for name, value in found.items()}

    def save(self, path: str | Path) -> None:
        """Writes a checkpoint, which `unrolled.load_bundle`, `load` and `python -m unrolled` read.

        Args:
            path: the file, such as "motions.ckpt".

        Raises:
            CheckpointError: the file can't be written; an existing file is unchanged.
        """
        save_bundle(self._described(), path)

    @classmethod
    def load(cls, path: str | Path, *, trusted: Sequence[str] = ()) -> Self:
        """Returns the estimator of a checkpoint of `save`, or of a training run.

        Args:
            path: the file, or the folder of a run.
            trusted: packages of your own cells in it.

        Raises:
            CheckpointError: see `load_bundle`.
            ValueError: the network of another estimator.
        """
        packages = (*TRUSTED, *(f"{package.rstrip('.')}." for package in trusted))
        return cls.from_bundle(load_bundle(path, trusted=packages))

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> Self:
        """Returns the estimator of a bundle.

        Args:
            bundle: the bundle, such as `load_bundle` returns it.

        Raises:
            ValueError: the network of another estimator.
        """
        cls._check_bundle(bundle)
        info = dict(bundle.info)
        own: Mapping[str, Any] = info.pop("estimator", {})
        known = cls._get_param_names()
        given = own.get("parameters", {}) if own.get("class") == cls.__name__ else {}
        found = cls(**{name: value for name, value in given.items() if name in known})
        found.bundle_ = bundle._replace(info=info)
        found.history_, found.n_iter_, found.best_epoch_ = [], 0, 0
        found._restore(own.get("learned", {}))
        return found

    @classmethod
    def _check_bundle(cls, bundle: Bundle) -> None:
        """Checks that a bundle has the network of this estimator.

        Raises:
            ValueError: it has another one.
        """
        raise NotImplementedError

    def _restore(self, learned: Mapping[str, Any]) -> None:
        """Sets what the estimator has learned beside the network; nothing is known of other checkpoints."""
        for name, value in learned.items():
            if name in self.learned:
                setattr(self, name, _from_plain(value))

    def __getstate__(self) -> dict[str, Any]:
        """Replaces the network by plain data, so that copies and pickles have no live objects of torch."""
        state: dict[str, Any] = {**cast("dict[str, Any]", super().__getstate__())}
        if "bundle_" in state:
            file = io.BytesIO()
            torch.save(content_of(self._described()), file)
            state["bundle_"] = file.getvalue()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if isinstance(state.get("bundle_"), bytes):
            content = torch.load(io.BytesIO(state["bundle_"]), weights_only=True)
            state["bundle_"] = _bundle_of(content)
        super().__setstate__(state)


def _bundle_of(content: Mapping[str, Any]) -> Bundle:
    ours = content[KEY]
    with torch.random.fork_rng(devices=[]):
        network = build(ours["network"])
    network.load_state_dict({name.removeprefix("network."): value for name, value in content["state_dict"].items()})
    info = {name: value for name, value in ours["info"].items() if name != "estimator"}
    return Bundle(network.eval(), build_processor(ours["processor"]), info)


def _as_plain(value: Any) -> Any:
    return {"array": value.tolist(), "dtype": str(value.dtype)} if isinstance(value, np.ndarray) else value


def _from_plain(value: Any) -> Any:
    return np.array(value["array"], dtype=value["dtype"]) if isinstance(value, dict) and "dtype" in value else value


def mismatch(estimator: type, bundle: Bundle) -> ValueError:
    """Returns the error of a bundle for another estimator."""
    return ValueError(
        f"{estimator.__name__} is of another task: the checkpoint contains {article(type(bundle.network).__name__)}"
    )


def label_text(label: Any) -> str:
    """Returns a label as a transform of labels knows it."""
    return str(label).strip()
