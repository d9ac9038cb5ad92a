"""Port: where functions run. A runtime knows a function by a dotted entry point and a JSON payload."""
