"""Draws runs side by side and writes a page of it that anyone can open.

``recorded`` reads what runs left behind, ``milestone`` finds what to compare them by, ``charts`` draws
(the one place that needs Matplotlib), ``look`` gives colours and turns a figure into bytes, ``page``
puts the page together.
"""
