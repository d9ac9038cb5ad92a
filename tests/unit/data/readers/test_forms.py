"""How a table is laid out: separators, comments, decimal commas, and what is too weak a guess."""

from __future__ import annotations

import pytest

from mlless.data.features import MISSING, Layout
from mlless.data.layouts import layout_text
from mlless.data.readers import Reading
from mlless.data.readers.forms import BLANKS, find_form
from mlless.data.readers.guess_clicks import guess_layout
from mlless.data.readers.plan import doubt, head_of
from mlless.errors import InputError

TIMES = "".join(f"{n}\t{n % 7}\t{n % 5 + 1}\t8788{n:05}\n" for n in range(50))


@pytest.mark.parametrize(
    ("text", "separator", "count"),
    [
        ("a,b,c\n1,2,3\n", ",", 3),
        ("a;b;c\n1;2;3,5\n", ";", 3),
        ("1;2;3,5\n1;3;4,5\n", ";", 3),
        ("a|b\n1|2\n", "|", 2),
        ("1::2::Toy Story, The::5\n1::2::Heat::4\n", "::", 4),
        ("1\t2\t3\n", "\t", 3),
        ("1\t 2\t\t3\n4\t 5\t\t6\n", BLANKS, 3),
        ("1\t2\t\n3\t4\t\n", BLANKS, 2),
        ("1\t2\t\t3\n4\t5\tx\t6\n", "\t", 4),
        ("1 2 3\n4 5 6\n", BLANKS, 3),
        ("user id,film\n1,Die Hard\n", ",", 2),
        ('a,b\n"1;2;3;4",2\n"x\ny",3\n', ",", 2),
        ("# a, b, c, d\na b\n1 2\n", BLANKS, 2),
    ],
)
def test_the_separator_is_the_one_that_all_rows_agree_on(text: str, separator: str, count: int) -> None:
    form = find_form(text.encode(), "here")
    assert (form.separator, form.count) == (separator, count)


@pytest.mark.parametrize("text", ["1\n2\n", "prose of many words\nthat has none\n", "# a\n\n", "a\tb"[:1]])
def test_what_has_no_columns_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="here: no"):
        find_form(text.encode(), "here")


def doubted(text: str) -> str | None:
    return doubt(head_of(find_form(text.encode(), "here"), Reading()))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("".join(f"{n}::1396{n:06}::{n % 50}::0\n" for n in range(50)), "fourth column is no time"),
        ("".join(f"1\t{n}\t3\t4\t105\n" for n in range(50)), "not three columns of numbers"),
        ("".join(f"a{n},b,3\n" for n in range(50)), "not three columns of numbers"),
        (TIMES, None),
        (TIMES + "1\t2\toops\tnow\n", None),
        ("".join(f"{n} {n * 7} {n / 7}\n" for n in range(50)), None),
        ("user,item,rating\n" + "".join(f"a{n},{n},{n % 5}\n" for n in range(50)), None),
        ("user,item,rating\n1,2,1\n", None),
    ],
)
def test_what_may_be_something_else_than_ratings_is_doubted(text: str, why: str | None) -> None:
    found = doubted(text)
    assert (found is None) if why is None else (found is not None and why in found)


def guessed(text: str, *, told: bool = False) -> Layout | None:
    return guess_layout(head_of(find_form(text.encode(), "here"), Reading()), labels_told=told)


def test_the_columns_of_clicks_are_guessed() -> None:
    expected = Layout("click", ("age", "price"), ("site", "on"), ";")
    assert guessed("age;site;click;price;on\n31;news;0;1,5;1x\nNA;shop;1;;\n") == expected
    assert guessed("n,seen\n1,True\n2,False\n") == Layout("seen", ("n",))
    odd = guessed("n,y\n" + "".join(f"{n},{n % 2}\n" for n in range(9)) + "?,1\n")
    assert odd == Layout("y", ("n",), missing=(*MISSING, "?"))
    assert 'missing = ["", "NA", "N/A", ' in layout_text(odd)
    assert guessed("n,seen\n1,no\n2,yes\n") is None
    odd = guessed("n,y\n" + "".join(f"{n},{n % 2}\n" for n in range(9)) + "?,1\n")
    assert odd == Layout("y", ("n",), missing=(*MISSING, "?"))
    assert 'missing = ["", "NA", "N/A", ' in layout_text(odd)
    assert guessed("n,seen\n1,no\n2,yes\n3,no\n", told=True) == Layout("seen", ("n",))
    assert guessed("a,b,c\n1,0,5\n0,1,7\n") is None  # either may be the label
    assert guessed("user,item,click\n1,2,0\n1,3,1\n") is None
