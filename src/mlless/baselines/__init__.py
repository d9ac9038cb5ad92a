"""Other systems of the field, trained side by side with MLLess: one file a system.

``contract`` says what a system is given and gives back. ``leading`` runs one over real ports, ``contestants``
knows all of them by name, ``turns`` lets them take turns, and ``standing`` makes a table of what came of it.
"""
