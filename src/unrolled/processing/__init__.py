"""Conversion of raw data to tensors and of predictions to data: text, labels, audio, images and series.

Each converter can be stored in a checkpoint as plain data. Random augmentation during training is in training/data.
"""
