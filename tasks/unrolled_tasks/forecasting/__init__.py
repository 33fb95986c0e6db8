"""Forecasting: the next steps of time series, with intervals."""

from unrolled_tasks.forecasting.data import ForecastingData as ForecastingData
from unrolled_tasks.forecasting.task import Forecasting as Forecasting

__all__ = ["Forecasting", "ForecastingData"]
