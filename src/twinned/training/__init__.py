"""Training: configuration, loop, validation, saving."""
