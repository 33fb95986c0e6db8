"""Networks that read a stream: what arrives as steps, steps as predictions, and many streams in one batch."""
