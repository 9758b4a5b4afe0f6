"""FER-2013 and FER+ in, models out. Never imported by a running service."""
