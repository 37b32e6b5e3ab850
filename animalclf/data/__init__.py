"""Pictures to a prepared set, and a prepared set to streams of uint8 batches."""
