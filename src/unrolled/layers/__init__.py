"""Modules that networks are made of: recurrent and feed-forward layers, attention, pooling, dropout, first weights.

A cell is one step and lives in cells/; how a layer is run lives in backends/.
"""
