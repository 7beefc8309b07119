"""What a person gets to read."""

from hypothesis import given
from hypothesis import strategies as st

from mgpo.errors import LONGEST, UserError


@given(st.text(max_size=2000))
def test_a_message_is_short_and_keeps_its_ends(text):
    """Where it begins with the cause and ends with the remedy, both are there."""
    said = str(UserError(f"the cause: {text}; do that"))
    assert len(said) <= LONGEST
    assert said.startswith("the cause: ") and said.endswith("; do that")
    if len(text) < LONGEST - 30:
        assert said == f"the cause: {text}; do that"
