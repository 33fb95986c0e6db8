"""The daily weather of Seattle, 2012 to 2015 (NOAA), from the package vega_datasets."""

from collections.abc import Iterator, Mapping
from typing import Any

from unrolled.training.data.base import DataError


def weather_rows() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields date, precipitation, temp_max, temp_min, wind and weather of 1,461 days, each with its place.

    Raises:
        DataError: vega_datasets is not installed.
    """
    try:
        from vega_datasets import local_data
    except ImportError:
        raise DataError(
            "data=seattle_weather needs the package vega_datasets: pip install 'unrolled[forecasting]'"
        ) from None
    table: Any = local_data.seattle_weather()
    for number, row in enumerate(table.to_dict("records"), start=1):
        yield f"Seattle's weather, day {number}", {**row, "date": row["date"].to_pydatetime()}
