"""Labelled pictures to a trained, evaluated classifier on one laptop or a Ray cluster."""

__version__ = "0.1.0"
