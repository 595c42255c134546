"""Running trained models: sessions, micro-batches, streams."""
