import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from talk3d.capture.ahead import DEPTH, ahead, alone, spread, use_threads


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Torch has four threads in these tests, whatever the machine has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(threads)


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it becomes true, within a time that only a broken thread needs."""
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


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
    eventually(lambda: len(made) >= DEPTH + 2)
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


def test_work_is_spread_and_comes_back_in_order() -> None:
    """Three items are in hand at once, or the barrier would break; the first is given back first although it is done last."""
    together = threading.Barrier(3, timeout=10)
    later = threading.Event()

    def work(number: int) -> int:
        if number < 3:
            together.wait()
        if number == 0:
            later.wait(10)
        if number == 2:
            later.set()
        return -number

    assert list(spread(range(20), work, 3)) == [-number for number in range(20)]


@pytest.mark.parametrize(("workers", "each"), [(4, 1), (2, 2), (1, 4), (8, 1)])
def test_torchs_threads_are_shared_out_and_given_back(workers: int, each: int) -> None:
    def work(number: int) -> int:
        torch.zeros(10) + 1  # what once made a thread take over the process's number
        return torch.get_num_threads()

    assert set(spread(range(20), work, workers)) == {each}
    assert torch.get_num_threads() == 4
    assert list(ahead(torch.get_num_threads() for _ in range(1))) == [4], "in threads that begin later, too"


def test_no_more_is_under_way_than_asked_for() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    results = spread(items(), lambda number: number, 2)
    for number in range(10):
        assert next(results) == number
        assert len(taken) == number + 2 + DEPTH
    results.close()
    assert len(taken) == 9 + 2 + DEPTH


@pytest.mark.parametrize("where", ["items", "work"])
def test_what_goes_wrong_in_a_worker_goes_wrong_here_and_ends_them_all(where: str) -> None:
    before = threading.active_count()

    def items() -> Iterator[int]:
        yield from range(5)
        if where == "items":
            raise KeyError("lost")
        yield from range(5, 50)

    def work(number: int) -> int:
        if where == "work" and number == 5:
            raise KeyError("lost")
        return number

    done: list[int] = []
    with pytest.raises(KeyError, match="lost"):
        done.extend(spread(items(), work, 2))
    assert threading.active_count() == before
    assert torch.get_num_threads() == 4


def test_who_stops_early_waits_only_for_what_is_in_hand() -> None:
    before = threading.active_count()
    begun: list[int] = []
    go_on = threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number:
            go_on.wait(10)
        return number

    results = spread(iter(range(10**9)), work, 2)
    assert next(results) == 0
    assert eventually(lambda: len(begun) == 3)
    threading.Timer(0.1, go_on.set).start()
    results.close()
    assert len(begun) == 3, "what waited for a worker is dropped"
    assert eventually(lambda: threading.active_count() == before)
    assert torch.get_num_threads() == 4


def test_a_thread_keeps_the_number_it_was_given() -> None:
    """Another thread, which sets the process's number before this one first computes, changes nothing."""
    given, changed = threading.Event(), threading.Event()
    found: list[int] = []

    def run() -> None:
        use_threads(2)
        given.set()
        changed.wait(10)
        torch.zeros(100_000).exp()
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=run)
    thread.start()
    given.wait(10)
    torch.set_num_threads(3)
    changed.set()
    thread.join()
    assert found == [2]


def test_alone_is_over_whatever_happens() -> None:
    found: list[int] = []

    def fail() -> None:
        with alone():
            found.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [*found, torch.get_num_threads()] == [1, 4]
