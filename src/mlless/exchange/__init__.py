"""How workers share what matters: significance filter, update codec, and the pattern of movement."""
