"""Extents of several layers put together: each byte once, zeros only where nobody has data."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from corral.services.snapshot_diff import merged
from corral.storage.layers import Run

LAYERS = st.lists(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12), st.booleans()), max_size=6), min_size=1, max_size=4
)


@given(LAYERS)
def test_each_byte_is_told_once_as_what_it_is(layers):
    runs = [Run(start, length, zero) for layer in layers for start, length, zero in layer]
    wanted: dict[int, bool] = {}
    for run in runs:
        for byte in range(run.start, run.start + run.length):
            wanted[byte] = wanted.get(byte, True) and run.zero
    found = merged(runs)
    told = [(byte, run.zero) for run in found for byte in range(run.start, run.start + run.length)]
    assert told == sorted(wanted.items())
    for one, other in pairwise(found):
        assert one.start + one.length < other.start or one.zero != other.zero


def test_nothing_is_nothing():
    assert merged([]) == []
