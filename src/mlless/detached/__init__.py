"""Jobs that need no terminal, and what one does with any job from another one: look, follow, stop, clean."""
