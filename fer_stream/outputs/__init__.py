"""Timelines out: tables, pictures, video, report."""
