"""A run from its configuration to its summary, and the commands that start one."""
