"""Recurrent cells: one step of a network. Time, padding, layers and direction are handled outside of them."""
