"""How raw data become tensors and predictions become data again, as plain data that travel with a network.

Text, labels, sound, images and series. What changes examples at random while training belongs to training/data.
"""
