"""Networks: encoders, decoders, encoder-decoders, classifiers and image trunks. Losses are defined by tasks."""
