"""Networks: encoders, decoders, both as one, classifiers, and what looks at images. Losses belong to tasks."""
