"""Data from files to batches: sources, caches, memory-mapped stores, batch plans and resumable loaders."""
