"""Base classes of tasks (LightningModules) and their parts: schedules, carried states, dynamic evaluation."""
