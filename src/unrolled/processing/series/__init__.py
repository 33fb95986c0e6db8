"""Time series: their times, their rows in tables, and the transform between series and what a forecaster reads.

Needs torch alone. Splits, windows and loaders are in `training/` and in the task.
"""
