"""Checks of the configuration, from YAML files and signatures alone, before torch is imported."""
