"""One module for each experiment of the guide; `docs/guide/run.py` runs them. Shared code begins with an underscore."""
