"""Images become `Encoded`: convolutional trunks and the encoder around them."""
