"""From `Encoded` to tokens. Told nothing, a decoder is a language model."""
