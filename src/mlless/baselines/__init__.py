"""Other systems of the field, trained side by side with MLLess: one file a system.

``contract`` says what a system is given and gives back. ``leading`` runs one over real ports.
"""
