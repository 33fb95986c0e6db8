"""Examples from files to batches: sources, caches, stores, plans and loaders that go on where they stopped."""
