"""Face crops → emotion probabilities."""
