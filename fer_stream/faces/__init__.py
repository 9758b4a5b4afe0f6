"""Frames → face crops with person ids: detection, tracking, cropping, quality."""
