"""A source in, frames out."""
