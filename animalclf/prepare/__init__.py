"""Labelled images to a prepared set: find the files, verify and measure each, split, write the manifest."""
