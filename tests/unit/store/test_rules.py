"""Key order and limits."""

from hypothesis import given
from hypothesis import strategies as st

from corral.store import rules

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6).map(
    lambda tail: "/" + tail
)
NARROW = st.text("/a\ud7ff\U0010ffff\ue000", max_size=4).map(lambda tail: "/" + tail)


@given(st.one_of(st.just(""), TEXT, NARROW), st.one_of(st.just(""), TEXT, NARROW), st.one_of(TEXT, NARROW))
def test_bounds_hold_exactly_the_keys_of_a_prefix_beyond_a_key(prefix, after, key):
    low, high = rules.bounds(prefix, after)
    assert (low <= key < high) == (key.startswith(prefix) and key > after)


@given(TEXT, TEXT)
def test_text_is_ordered_as_its_utf_8_bytes(one, other):
    assert (one < other) == (one.encode() < other.encode())
