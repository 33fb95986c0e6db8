"""The search space of a sweep, in the syntax of Hydra's overrides, as distributions of Optuna."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from unrolled.training.configuration.options import ConfigurationError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def swept(overrides: Sequence[Override]) -> list[Override]:
    """Returns the overrides with several values."""
    return [override for override in overrides if override.is_sweep_override()]


def key_of(override: Override) -> str:
    """Returns the key of an override, without plus signs."""
    return override.get_key_element().lstrip("+")


def search_space(overrides: Sequence[Override]) -> dict[str, BaseDistribution]:
    """Returns a distribution for each override with several values, by key.

    `interval(a, b)` is an interval of numbers, of integers as `int(interval(a, b))`; `range(…)` are numbers with a step
    between them; `tag(log, …)` makes either logarithmic. Lists and `choice(…)` are categories.

    Raises:
        ConfigurationError: an empty or impossible space, or an unknown tag.
    """
    return {key_of(override): _distribution(override) for override in swept(overrides)}


def _distribution(override: Override) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    tags: set[str] = set(getattr(value, "tags", ()))
    if tags - {"log"}:
        raise ConfigurationError(f"{override.input_line}: unknown tag {min(tags - {'log'})}; there is tag(log, …)")
    log = "log" in tags
    try:
        if isinstance(value, IntervalSweep):
            low, high = value.start, value.end
            kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
            return kind(low, high, log=log)  # pyright: ignore[reportArgumentType]
        texts = list(override.sweep_string_iterator())
        if not texts:
            raise ValueError("it has no value")
        if isinstance(value, RangeSweep):
            return _distribution_of_range(value, len(texts), log=log)
        if log:
            raise ValueError("only an interval or a range can be logarithmic")
        return CategoricalDistribution(texts)
    except ValueError as error:
        raise ConfigurationError(f"{override.input_line}: {error}") from error


def _distribution_of_range(value: RangeSweep, count: int, *, log: bool) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    start, step = Decimal(str(value.start)), Decimal(str(value.step))  # as Optuna counts steps, without rounding
    low, high = sorted((start, start + (count - 1) * step))
    if isinstance(value.start, int) and isinstance(value.step, int):
        return IntDistribution(int(low), int(high), log=log, step=1 if log or count == 1 else int(abs(step)))
    return FloatDistribution(float(low), float(high), log=log, step=float(abs(step)) if count > 1 else None)


def override_of(override: Override, value: Any) -> str:
    """Returns the override of one job for a value that Optuna suggested."""
    if isinstance(override.value(), RangeSweep):  # the text of Hydra, without rounding errors of steps
        value = min(override.sweep_string_iterator(), key=lambda text: abs(float(text) - float(value)))
    return f"{override.get_key_element()}={value}"
