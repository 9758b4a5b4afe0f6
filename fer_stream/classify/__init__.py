"""Face crops in, probabilities out."""
