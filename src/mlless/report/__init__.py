"""Listens to a run and tells of it: files for other tools, progress for a person."""
