"""Tasks: one package each, a training problem around a network of `unrolled`."""
