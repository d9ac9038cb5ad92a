"""Fixtures of a real redis server."""
