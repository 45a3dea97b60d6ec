import threading
import time
from collections.abc import Iterator

import pytest

from talk3d.capture.ahead import DEPTH, ahead


def test_the_same_items_in_the_same_order() -> None:
    assert list(ahead(iter(range(50)))) == list(range(50))
    assert list(ahead(iter([None, 0, None]))) == [None, 0, None]


def test_they_are_made_before_they_are_asked_for_and_not_too_many() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    running = ahead(items())
    assert next(running) == 0
    until = time.monotonic() + 10
    while len(made) < DEPTH + 2 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == DEPTH + 2  # the one taken, those that wait, and the one in hand
    running.close()


def test_what_goes_wrong_goes_wrong_here() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("lost")

    running = ahead(items())
    assert next(running) == 1
    with pytest.raises(KeyError, match="lost"):
        next(running)


def test_who_stops_early_stops_the_thread_and_what_it_ran() -> None:
    ended: list[bool] = []

    def items() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            ended.append(True)

    before = threading.active_count()
    running = ahead(items())
    next(running)
    assert threading.active_count() == before + 1
    running.close()
    assert threading.active_count() == before
    assert ended == [True]
