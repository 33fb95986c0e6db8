"""Layers of networks: recurrent and feed-forward layers, attention, pooling, dropout, weight initialization.

Cells, which compute one step, are in cells/. The implementations that run a layer are in backends/.
"""
