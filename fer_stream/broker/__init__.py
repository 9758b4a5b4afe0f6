"""Face crops to the workers, predictions to the timeline."""
