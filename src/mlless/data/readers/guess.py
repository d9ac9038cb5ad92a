"""What the rows of a text are: found where it speaks plainly, asked for where it does not."""

from __future__ import annotations

import re
from typing import Literal

from mlless.data.readers.text import shortened
from mlless.errors import InputError

Format = Literal["ratings", "libsvm", "criteo", "columns"]

_SEPARATORS = (b"::", b"\t", b",", b";", b"|")
_CRITEO_TABS = 39  # between a label, 13 numbers and 26 categories
_LIBSVM_NAME = re.compile(r"\.(svm|libsvm|svmlight)(\.\w+)?$", re.IGNORECASE)
_LABEL = re.compile(rb"\s*[+-]?[0-9.]+\s*(#.*)?")
_LIBSVM_LINE = re.compile(rb"\s*([+-]?[0-9.,]+|(?i:true|false))(\s+[^\s:]+:[^\s:]+)+\s*(#.*)?")
_LINES = 100


def guess(name: str, start: bytes, *, whole: bool) -> Format:
    """Return what the rows of a text are that begins with ``start``, or is it; InputError if that is unsure.

    A table is taken for ratings: who reads it sees by its columns whether it is one.
    """
    lines = start.splitlines()
    if not whole and len(lines) > 1:
        del lines[-1]  # it may be cut short
    elif not whole:
        lines[-1] = lines[-1].rpartition(b" ")[0] or lines[-1]  # its last word may
    lines = [line for line in lines if line.strip() and not line.lstrip().startswith(b"#")][:_LINES]
    first = lines[0] if lines else b""
    if first.count(b"\t") == _CRITEO_TABS:
        return "criteo"
    sparse = [line for line in lines if _LIBSVM_LINE.fullmatch(line)]
    bare = [line for line in lines if _LABEL.fullmatch(line)]
    fitting = len(sparse) + len(bare)
    named = _LIBSVM_NAME.search(name) is not None
    if (sparse and (named or 2 * fitting > len(lines))) or (named and fitting == len(lines)):
        return "libsvm"  # who reads it tells of the lines that are not
    if bare and len(bare) == len(lines):
        raise _unsure(name, first, "the first lines are bare numbers: labels without features, or a column")
    if any(separator in first for separator in _SEPARATORS):
        return "ratings"
    if sparse:
        other = next(line for line in lines if line not in sparse and line not in bare)
        raise _unsure(name, other, "few of the first lines are LIBSVM with features")
    raise _unsure(name, first, "no 'index:value' as in LIBSVM, and no separator of columns in the first line")


def _unsure(name: str, found: bytes, why: str) -> InputError:
    return InputError(
        f"unknown format: {why}",
        where=name,
        expected="ratings separated by ',', '::' or tabs, or LIBSVM lines 'label index:value ...'",
        found=shortened(found),
        cure="say what it is with --format, or describe its columns with --columns",
    )
