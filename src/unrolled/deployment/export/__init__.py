"""Trained networks for other programs: what `python -m unrolled export` writes.

`targets` lists what a network can be exported to. Each target has a module or a package here, which imports what it
needs when it is chosen.
"""
