"""Outputs: tables, timelines, plots, reports, annotated videos and recordings."""
