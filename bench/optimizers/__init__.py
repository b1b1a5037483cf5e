"""Which optimizer reaches how far, at its best rate."""
