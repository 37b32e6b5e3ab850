"""Fuzzing: files cut, flipped and spliced at random places, given to the readers. Run it with `make fuzz`."""
