"""Pictures that come back are those that were sent, in their order, and stay what they are."""

from collections.abc import Iterator

import torch
from torch import Tensor

from talk3d.talker.wayback import WayBack


def batches(sizes: list[int], asked: list[int]) -> Iterator[Tensor]:
    for number, size in enumerate(sizes):
        asked.append(number)
        yield torch.full((size, 4, 4, 3), number + 1, dtype=torch.uint8)


def test_batches_of_any_sizes_come_back_in_order() -> None:
    sizes = [4, 4, 4, 4, 3]
    brought = list(WayBack().bring(batches(sizes, [])))
    assert [len(some) for some in brought] == sizes
    assert [set(some.ravel().tolist()) for some in brought] == [{1}, {2}, {3}, {4}, {5}]
    assert list(WayBack().bring([])) == []


def test_the_next_batch_is_asked_for_before_one_is_waited_for() -> None:
    asked: list[int] = []
    coming = WayBack().bring(batches([1, 1, 1], asked))
    next(coming)
    assert asked == [0, 1]
    next(coming)
    assert asked == [0, 1, 2]
    next(coming)
    assert next(coming, None) is None


def test_one_way_back_serves_many_batches_after_another() -> None:
    way = WayBack()
    first = list(way.bring(batches([2, 2], [])))
    list(way.bring(iter([torch.zeros(2, 4, 4, 3, dtype=torch.uint8)] * 2)))
    assert [int(some.max()) for some in first] == [1, 2]
