"""Conversion of raw data to tensors and of predictions to data: text, labels, audio, images and series.

Each is a `Transform`, which a checkpoint stores as plain data. Augmentation, which only training uses, is next to its
modality.
"""
