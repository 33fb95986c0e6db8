"""Text to ids and back, without torch. Subwords are found in training/data and written here."""
