"""PURE: what a decoder says of a file that a person has written, in that person's words."""

from __future__ import annotations

import re

import msgspec

_PLACE = re.compile(r" - at `\$?\.?(.*)`$")
_WORDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "object": "a table",
    "array": "a list",
    "null": "nothing",
}
_KIND = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_ABSENT = re.compile(r"Object missing required field `(.*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")


def explained(error: Exception) -> str:
    """Return an error of msgspec in words: what is wrong, and at which entry of the file.

    >>> explained(ValueError("Expected `float`, got `str` - at `$.hosts[...].cores`"))
    'at hosts.cores: text where a number belongs'
    """
    text = str(error)
    if isinstance(error, msgspec.DecodeError) and not isinstance(error, msgspec.ValidationError):
        return f"the text cannot be read: {text}"
    place = _PLACE.search(text)
    what = _what(text[: place.start()] if place else text)
    where = re.sub(r"\[\.\.\.\]", "", place[1]) if place else ""
    return f"at {where}: {what}" if where else what


def _what(text: str) -> str:
    if found := _KIND.fullmatch(text):
        wanted = " or ".join(_WORDS.get(one, one) for one in re.split(r" \| ", found[1]))
        return f"{_WORDS.get(found[2], found[2])} where {wanted} belongs"
    if found := _ABSENT.fullmatch(text):
        return f"the entry {found[1]} is missing"
    if found := _UNKNOWN.fullmatch(text):
        return f"there is no entry of the name {found[1]}"
    return text
