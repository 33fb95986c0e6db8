"""Forecasts of the series of a table, with a picture."""

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import torch

from unrolled.checkpoint import Bundle
from unrolled.deployment.forecast_plots import draw_charts, forecast_charts
from unrolled.deployment.forecasting import check_levels, forecast, forecaster_of, parse_csv_series
from unrolled.deployment.serving.kinds.base import Kind
from unrolled.deployment.serving.service import Refusal, number
from unrolled.processing.series.table import TimeSeries

if TYPE_CHECKING:
    from fastapi import APIRouter

    from unrolled.deployment.serving.service import Service

_LEVELS = ((0.05, 0.25, 0.5, 0.75, 0.95), (0.1, 0.25, 0.5, 0.75, 0.9))  # the first that a network predicts
_MOST_SERIES = 8


def _settings(bundle: Bundle) -> dict[str, Any]:
    network, transform = forecaster_of(bundle)
    columns = transform.columns
    named = [columns.time, *([] if columns.series is None else [columns.series])]
    return {
        "horizon": network.horizon,
        "columns": [*named, *columns.target, *columns.past, *columns.future, *columns.static],
        "levels": _levels(bundle),
    }


def _levels(bundle: Bundle) -> tuple[float, ...]:
    for levels in _LEVELS:
        with suppress(ValueError):
            check_levels(forecaster_of(bundle)[0], levels)
            return levels
    return ()  # a network without quantiles


def _add_routes(routes: "APIRouter", service: "Service") -> None:
    from fastapi import Body

    horizon_of_network = forecaster_of(service.bundle)[0].horizon

    @routes.post("/forecast")
    async def forecast_table(
        text: Annotated[str, Body()],
        horizon: Annotated[int | None, Body(ge=1, le=horizon_of_network)] = None,
    ) -> dict[str, Any]:
        """Continue the series of a table as CSV."""
        return await service.run(lambda: _forecast(service, text, horizon))


def _forecast(service: "Service", text: str, horizon: int | None) -> dict[str, Any]:
    transform = forecaster_of(service.bundle)[1]
    series = parse_csv_series(text, "the table", transform.columns, transform.frequency)
    if len(series) > _MOST_SERIES:
        raise Refusal(413, f"the table has {len(series)} series, and this server reads {_MOST_SERIES}: split it")
    return _continued(service, series, horizon)


def _continued(service: "Service", series: list[TimeSeries], horizon: int | None) -> dict[str, Any]:
    bundle = service.bundle
    transform, levels = forecaster_of(bundle)[1], _levels(bundle)
    steps = list(forecast(bundle, series, horizon=horizon, quantiles=levels, generator=service.generator))
    rows = [
        {"series": step.series, "time": str(step.time), "target": step.target, "forecast": number(step.value)}
        | {f"q{level:g}": number(value) for level, value in step.quantiles.items()}
        for step in steps
    ]
    new = [each.title for each in series if each.name not in transform.scales]
    notices = [f"{name} was not in training and is scaled by its own mean and deviation" for name in new]
    return {"rows": rows, "picture": draw_charts(forecast_charts(bundle, series, steps)), "notices": notices}


def _trial(service: "Service") -> object:
    network, transform = forecaster_of(service.bundle)
    columns, horizon = transform.columns, network.horizon
    steps = transform.context + horizon
    values = torch.zeros(steps, len(columns.target), dtype=torch.float64)
    values[transform.context :] = torch.nan
    past, future = torch.zeros(steps, len(columns.past)).double(), torch.zeros(steps, len(columns.future)).double()
    static = tuple(transform.categories.get(name, ["0"])[0] for name in columns.static)
    start = 0 if transform.frequency.unit == "step" else datetime(2000, 1, 1)
    name = next(iter(transform.scales), "")
    return _continued(service, [TimeSeries(name, start, values, past, future, static, "the trial")], horizon)


KIND = Kind("forecast", "Forecast", forecaster_of, _settings, _add_routes, _trial)
