"""Queue of face crops to the workers, and journal of predictions to the timeline, on Redis."""
