"""From a run folder to probabilities, figures and submissions."""
