"""PURE: when to let workers go, and whom.

``decision`` holds the values, ``tuner`` asks a policy from time to time: ``published`` is the rule of the
published system, ``economy`` our own. What they look at is in ``smoothing``, ``knee``, ``curves`` (which
alone needs SciPy), ``tail``, ``steptime`` and ``leaver``. No policy ever raises for what the losses of a
job look like: where it cannot tell, workers stay.
"""
