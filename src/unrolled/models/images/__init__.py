"""Encoders of images: convolutional trunks, and the encoder that uses them."""
