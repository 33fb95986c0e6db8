"""Heads: output layers that predict the parameters of a distribution over targets, with its loss.

A head computes single predictions with any leading axes. Time, search and class names are handled outside of it.
"""
