"""Recorded files as jobs: submitted by anybody, worked off by `fer-stream worker jobs`."""
