"""Tokenizers, which convert text to ids and back, without torch. Subword training is in training/data."""
