"""Weights of other programs' recurrent layers: read as data, and copied into cells of this package."""
