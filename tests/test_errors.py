"""Numbers as people write them, and the sentences for what is no number."""

import pytest

from soar_tf.errors import InputError, unknown
from soar_tf.validation import (
    check_boolean,
    check_epsilon,
    check_integer,
    check_number,
    parse_number,
)


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), (" 8 / 255 ", 8 / 255), ("1e-3", 1e-3), (2, 2.0)]
)
def test_numbers_and_fractions(text, value):
    assert parse_number(text, "x") == value


@pytest.mark.parametrize("bad", ["abc", "", "8/0", "nan", "inf", "1e999", None, [1], True, "1/2/3"])
def test_what_is_no_number(bad):
    with pytest.raises(InputError, match="`x` must be a finite number, or a fraction"):
        parse_number(bad, "x")


def test_ranges():
    assert check_integer("20", "steps", minimum=1) == 20
    with pytest.raises(InputError, match=r"`steps` must be an integer. Received: '1.5'."):
        check_integer("1.5", "steps")
    with pytest.raises(InputError, match=r"`a` must be > 0 and <= 1. Received: 0."):
        check_number(0, "a", minimum=0, maximum=1, exclusive=True)
    with pytest.raises(InputError, match=r"write 8/255 for 0-255"):
        check_epsilon("8")
    with pytest.raises(InputError) as negative:
        check_epsilon(-1)
    assert str(negative.value) == "`epsilon` must be >= 0 and <= 1. Received: -1."
    assert check_epsilon(2.5, norm="l2") == 2.5
    assert check_boolean("False", "b") is False
    with pytest.raises(InputError, match="must be true or false"):
        check_boolean("yes", "b")


def test_the_nearest_name_is_suggested_only_if_it_is_near():
    assert "Did you mean 'pgd20'?" in str(unknown("attack", "pgd200", ["fgsm", "pgd20"]))
    assert "Did you mean" not in str(unknown("attack", "zzz", ["fgsm", "pgd20"]))
