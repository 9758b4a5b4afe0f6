"""Jobs: recorded files submitted to a running service and processed by `fer-stream worker jobs`."""
