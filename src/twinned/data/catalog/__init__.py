"""Public data sets: where they are, how they are fetched and converted."""
