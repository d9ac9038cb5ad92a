"""Real servers for the tests, each started by a fixture on a port of its own and stopped by it."""
