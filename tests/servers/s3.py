"""Fixtures of a real s3 server."""
