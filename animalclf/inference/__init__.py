"""From a run folder to probabilities, metrics and submissions."""
