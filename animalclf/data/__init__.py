"""Stored images to batches: sampling order, augmentation, loaders; decoding of image files."""
