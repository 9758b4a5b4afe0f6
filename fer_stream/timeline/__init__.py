"""Probabilities in, one emotion timeline per person out."""
