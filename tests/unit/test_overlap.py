"""Reading ahead and writing behind keep order, and lose neither items nor errors."""

from __future__ import annotations

import threading

import pytest

from mlbatch.overlap import WriteBehind, read_ahead


def test_items_come_in_order_and_one_is_made_ahead():
    made = []

    def items():
        for number in range(5):
            made.append((number, threading.current_thread().name))
            yield number

    ahead = read_ahead(items())
    assert next(ahead) == 0
    assert list(ahead) == [1, 2, 3, 4]
    assert [number for number, _ in made] == [0, 1, 2, 3, 4]
    assert all(name.startswith("mlbatch-read") for _, name in made)


def test_never_more_than_one_item_is_waiting():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    for number in read_ahead(items()):
        assert len(made) <= number + 2


def test_an_error_of_the_source_comes_where_its_item_would():
    def items():
        yield 1
        raise OSError

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(OSError):  # noqa: PT011  the very error
        next(ahead)


def test_a_reader_that_is_left_early_ends():
    ahead = read_ahead(iter(range(10)))
    next(ahead)
    ahead.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("mlbatch-read")]


def test_writes_are_in_order_and_done_when_the_block_ends():
    written = []
    with WriteBehind(written.append) as writer:
        for number in range(5):
            writer.put(number)
            assert written[:number] == list(range(number))
    assert written == [0, 1, 2, 3, 4]


def test_waiting_sees_the_write_done():
    written = []
    with WriteBehind(written.append) as writer:
        writer.put(1)
        writer.wait()
        assert written == [1]


def refuse(_):
    message = "refused"
    raise OSError(message)


def test_a_failed_write_is_told_at_the_next_one_and_nothing_follows_it():
    tried = []

    def write(number):
        tried.append(number)
        refuse(number)

    with pytest.raises(OSError, match="refused"), WriteBehind(write) as writer:  # noqa: PT012
        writer.put(1)
        writer.put(2)
    assert tried == [1]


def test_the_last_failed_write_is_told_at_the_end():
    with pytest.raises(OSError, match="refused"), WriteBehind(refuse) as writer:
        writer.put(1)


def test_a_write_under_way_is_finished_when_the_computing_thread_fails():
    written, begun, go = [], threading.Event(), threading.Event()

    def write(number):
        begun.set()
        go.wait(10)
        written.append(number)

    with pytest.raises(ZeroDivisionError), WriteBehind(write) as writer:  # noqa: PT012
        writer.put(1)
        begun.wait(10)
        threading.Timer(0.1, go.set).start()
        raise ZeroDivisionError
    assert written == [1]
