"""Compare two maps of the same roads."""
