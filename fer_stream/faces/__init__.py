"""Frames in, face crops out."""
