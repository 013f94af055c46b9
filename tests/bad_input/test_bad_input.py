"""Every case of the table gets its message, exit code 2 on the command line, and writes nothing."""

import pytest
import table

CASES = table.cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['surface']}: {case['input']}"[:70])
def test_the_message_is_the_tables(case, tiny_run):
    assert table.message(case, tiny_run) == case["message"]


def test_there_are_enough_cases_of_every_kind():
    counts = {s: sum(case["surface"] == s for case in CASES) for s in table.SURFACES}
    assert len(CASES) >= 60 and min(counts.values()) >= 10, counts
    assert len({(case["surface"], case["input"]) for case in CASES}) == len(CASES)


def test_every_message_is_one_sentence_or_two():
    for case in CASES:
        assert case["message"] and "\n" not in case["message"] and len(case["message"]) < 400


def test_the_page_is_made_from_the_table():
    assert table.PAGE.read_text() == table.page(CASES)
