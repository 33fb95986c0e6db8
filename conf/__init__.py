"""Hydra configuration groups, readable as pkg://unrolled.conf."""
