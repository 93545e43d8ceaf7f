"""Which put a pending key is: arrays and dict must do what a plain dict does."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlearn import event_places
from streamlearn.event_places import Places


def keys_of(numbers: list[int], kind: str) -> Any:
    if kind == "numbers":
        return np.array(numbers, dtype=np.int64)
    out = np.empty(len(numbers), dtype=object)
    out[:] = numbers if kind == "ids" else [f"e{i}" for i in numbers]
    return out


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "enter", "again", "pop", "copy"]),
        st.lists(st.integers(0, 60), max_size=12),
        st.sampled_from(["numbers", "numbers", "numbers", "ids", "text"]),
    ),
    max_size=20,
)


@given(steps=STEPS, run=st.sampled_from([1, 4, 100]))
def test_it_does_what_a_dict_does(steps: Any, run: int) -> None:
    places, naive = Places(), dict[Any, int]()
    puts = fresh = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_places, "_RUN", run)
        for what, given_numbers, kind in steps:
            numbers = given_numbers
            if what == "copy":
                places.copy().pop(keys_of(numbers, kind))
                places = places.copy()
                continue
            if what == "enter":  # numbers that were never there
                numbers = [fresh + i for i in range(len(numbers))]
                fresh += len(numbers)
            keys = keys_of(numbers, kind)
            told = keys.tolist()
            assert places.knows_any(keys) == any(key in naive for key in told)
            if what == "pop":
                expected = [naive.pop(key, -1) for key in told]
                assert places.pop(keys).tolist() == expected
            else:
                at = np.arange(puts, puts + len(told))
                puts += len(told)
                replaced = []
                for key, put in zip(told, at.tolist(), strict=True):
                    if key in naive:
                        replaced.append(naive[key])
                    naive[key] = put
                assert places.enter(keys, at) == replaced
            assert len(places) == len(naive)
            assert all((key in places) == (key in naive) for key in [0, 7, "e7", *told])
            found, where = places.items()
            order = sorted(naive.items(), key=lambda pair: pair[1])
            assert list(zip(found, where.tolist(), strict=True)) == order


def test_numbers_of_events_take_seventeen_bytes() -> None:
    places = Places()
    for start in range(0, 1 << 16, 512):
        numbers = np.arange(start, start + 512)
        places.enter(numbers, 2 * numbers)
    assert sum(r.keys.nbytes + r.puts.nbytes + r.alive.nbytes for r in places._runs) == 17 << 16
    assert places._dict == {}
    assert places.pop(np.arange(0, 1 << 16, 2)).tolist() == list(range(0, 1 << 17, 4))
    assert places.pop(np.array([4, 5, 5, 1 << 20])).tolist() == [-1, 10, -1, -1]
    assert len(places) == (1 << 15) - 1
