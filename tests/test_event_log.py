"""The log of pending events: its state says what was seen, not where a block ended."""

import numpy as np

from streamlearn.event_log import EventLog


def test_columns_that_open_later_in_the_block_leave_no_trace() -> None:
    """The same two events, logged with their own widths, or with that of a wider block."""
    rows = np.array([True, False])
    narrow, wide = EventLog(), EventLog()
    for log, more in ((narrow, 0), (wide, 2)):
        fill = np.full((2, more), np.nan)
        columns = {
            "0/X": np.hstack([np.array([[1.0, np.nan, 3.0]] * 2), fill]),
            "0/proba": np.hstack([np.array([[0.0, 1.0]] * 2), np.zeros((2, more))]),
            "0/prediction": np.array([1.0, 0.0]),
        }
        log.put(np.array(["a", "b"], dtype=object), rows, columns)
        log.put(
            np.array(["b", "b"], dtype=object), rows, {k: c * np.nan for k, c in columns.items()}
        )
    left, right = narrow.state(), wide.state()
    assert left.table == right.table
    for name, array in left.arrays.items():
        np.testing.assert_array_equal(right.arrays[name], array, err_msg=name)
    back = wide.take(np.array(["a"], dtype=object), np.array([True]))
    np.testing.assert_array_equal(back.columns["0/X"], [[1.0, np.nan, 3.0, np.nan, np.nan]])
    np.testing.assert_array_equal(back.columns["0/proba"], [[0.0, 1.0, 0.0, 0.0]])
