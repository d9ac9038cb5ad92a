"""For tests of MLLess and of what is built on it.

``contracts`` has one test class for each port, to be subclassed for an adapter (it needs pytest).
"""
