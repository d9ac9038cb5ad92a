"""Ports to the outside: key-value store, message bus, object store. I/O, no decisions.

``ports`` states the contracts; every other module is one adapter, and each third-party client
is imported in exactly one of them.
"""
