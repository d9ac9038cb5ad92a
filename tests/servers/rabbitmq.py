"""Fixtures of a real rabbitmq server."""
