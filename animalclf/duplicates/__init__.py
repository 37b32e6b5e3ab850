"""Near-duplicate search: candidate pairs, verification, groups."""
