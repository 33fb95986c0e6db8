"""Sound: from files to samples, and from samples to frames of features, in torch alone."""
