"""PURE: what a job costs: dated tariffs, the meter that applies them, and the budget that holds.

Amounts are in US dollars, times in seconds on the clock of whoever asks.
"""
