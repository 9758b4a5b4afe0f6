"""Soak test: the service under random faults for a given time, and a report of the losses."""
