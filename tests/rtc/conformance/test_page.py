"""The page of clauses says what the tests say."""

from __future__ import annotations

from tests.rtc.conformance.clauses import proofs
from tests.rtc.conformance.page import PAGE, all_deviations, text


def test_the_page_is_up_to_date() -> None:
    """docs/conformance.md is what the tests and the tables of deviations would write now."""
    assert PAGE.read_text() == text(), "run python -m tests.rtc.conformance.page"


def test_each_proof_says_what_holds() -> None:
    """Each test that proves a clause has a sentence, which the page shows."""
    found = proofs()
    assert found
    assert [proof.test for proof in found if not proof.says.endswith(".")] == []


def test_each_deviation_is_shown_by_a_test() -> None:
    """A deviation that names a test names one that exists."""
    known = {f"{proof.module}::{proof.test}" for proof in proofs()}
    assert [
        deviation.test for deviation in all_deviations() if deviation.test and deviation.test not in known
    ] == []
