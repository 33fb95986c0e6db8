"""Training problems around a network: what every task shares, and what tasks that write text share."""
