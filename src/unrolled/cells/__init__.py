"""Recurrent cells: one step of a network, which knows no time, padding, layers or direction."""
