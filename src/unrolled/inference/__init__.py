"""A trained network at work: functions on a bundle, and their commands (python -m unrolled …)."""

from unrolled.inference.sampling import sample_text as sample_text

__all__ = ["sample_text"]
