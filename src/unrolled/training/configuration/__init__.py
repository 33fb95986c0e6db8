"""Mistakes in what was asked for, found from YAML files and signatures before torch is imported."""
