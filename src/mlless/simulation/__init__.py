"""The virtual world: the same roles, with real gradients, on a virtual clock.

``simulate`` in ``jobs`` runs a whole job in one process. What things take is for ``conditions`` to say.
What goes wrong comes from ``faults``; what came and went is in the ``trace``.
"""
