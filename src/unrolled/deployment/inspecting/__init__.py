"""The report of `python -m unrolled inspect`: what a network does with one source, as one HTML page.

`running` runs a network on a source, `report` computes the figures, `svg` and `page` draw them. Analyses belong in
`unrolled.inspection`.
"""
