"""How a table is laid out: separators, comments, decimal commas, and what is too weak a guess."""

from __future__ import annotations

import pytest

from mlless.data.features import MISSING, Layout
from mlless.data.layout_files import layout_text
from mlless.data.readers import Reading
from mlless.data.readers.forms import BLANKS, find_form
from mlless.data.readers.guess_clicks import Guess, guess_layout
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


def guess_of(text: str, labels: tuple[str, str] | None = None) -> Guess | None:
    return guess_layout(head_of(find_form(text.encode(), "here"), Reading()), labels)


def guessed(text: str, labels: tuple[str, str] | None = None) -> Layout | None:
    guess = guess_of(text, labels)
    return guess.layout if guess else None


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
    told = ("no", "yes")
    assert guessed("n,seen\n1,no\n2,yes\n3,no\n", told) == Layout("seen", ("n",), labels=told)
    assert guessed("n,seen,sex\n1,no,f\n2,yes,m\n3,no,m\n", told) == Layout(
        "seen", ("n",), ("sex",), labels=told
    )
    assert guessed("a,b,c\n1,0,5\n0,1,7\n") is None  # either may be the label
    assert guessed("user,item,click\n1,2,0\n1,3,1\n") is None


def test_a_first_column_without_a_name_that_counts_rows_is_left_out() -> None:
    for name in ("", "Unnamed: 0"):
        guess = guess_of(f"{name},n,y\n0,5,0\n1,6,1\n3,7,0\n")
        assert guess is not None
        assert (guess.layout, guess.numbering) == (Layout("y", ("n",)), True)
    for text in (",n,y\n4,5,0\n2,6,1\n", ",n,y\n1,5,0\n2,6,1\n", ",n,y\n0,5,0\n0,6,1\n"):
        guess = guess_of(text)
        assert guess is not None
        assert (guess.layout.numeric, guess.numbering) == (("", "n"), False)


@pytest.mark.parametrize(
    ("name", "number"),
    [("user_id", 0), ("id", 0), ("ID", 0), ("adId", 0), ("customer", 0), ("paid", 1), ("idle", 1), ("n", 1)],
)
def test_whole_numbers_in_a_column_named_like_an_id_are_categories(name: str, number: int) -> None:
    layout = guessed(f"{name},price,y\n7,5,0\n9,6,1\n")
    assert layout is not None
    assert (name in layout.numeric) == bool(number)
    layout = guessed(f"{name},price,y\n7.5,5,0\n9,6,1\n")
    assert layout is not None
    assert name in layout.numeric


def test_two_labels_of_unknown_meaning_are_found() -> None:
    guess = guess_of("n,clicked\n1,no\n2,yes\n3,no\n")
    assert guess is not None
    assert set(guess.unknown) == {"no", "yes"}
    for known in ("0\n1,1.0", "-1\n2,1", "False\n2,true"):
        guess = guess_of(f"n,clicked\n1,{known}\n")
        assert guess is not None
        assert not guess.unknown
