"""The commands of `python -m unrolled` for trained networks, one a module, and what they share."""
