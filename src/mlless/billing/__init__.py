"""PURE: what a job costs: dated tariffs, the meter that applies them, and the budget that bounds it.

Amounts are in US dollars, and times in seconds on the clock of the caller.
"""
