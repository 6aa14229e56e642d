from __future__ import annotations

import torch
from torch import Tensor

from lnln.models.distinct import by_distinct


class Reader:
    """Says something of what is seen of each row, and counts rows."""

    def __init__(self) -> None:
        self.num_rows = 0

    def __call__(self, seen: Tensor, ids: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        self.num_rows += len(ids)
        powers = 7.0 ** torch.arange(ids.shape[1])
        return (seen * powers * ids).sum(dim=1), torch.stack([(seen * powers * places).sum(dim=1)] * 2, dim=1)


def test_rows_are_equal_by_what_is_seen_of_them_alone() -> None:
    seen = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]]).bool()
    ids = torch.tensor([[5, 6, 1], [5, 6, 2], [5, 7, 1], [5, 6, 1], [5, 6, 1], [3, 3, 3], [4, 4, 4]])
    places = torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 2, 1], [0, 1, 2], [2, 1, 0]])
    whole, once = Reader(), Reader()
    for expected, found in zip(whole(seen, ids, places), by_distinct(once, seen, ids, places), strict=True):
        assert torch.equal(expected, found)
    # The second is the first, and the last the one before it; the first three differ in an id, a length, a place.
    assert (whole.num_rows, once.num_rows) == (7, 5)


def test_an_id_of_zero_that_is_seen_is_no_padding() -> None:
    seen = torch.tensor([[True, True], [True, False]])
    ids, places = torch.tensor([[5, 0], [5, 0]]), torch.zeros(2, 2, dtype=torch.long)
    once = Reader()
    by_distinct(once, seen, ids, places)
    assert once.num_rows == 2


def test_gradients_are_those_of_all_rows() -> None:
    table = torch.randn(9, 4, requires_grad=True)
    ids = torch.tensor([[1, 2], [1, 2], [3, 2], [1, 2]])
    seen, places = torch.ones(4, 2, dtype=torch.bool), torch.arange(2).expand(4, 2)
    weight = torch.randn(4, 4)

    def read(seen: Tensor, ids: Tensor, places: Tensor) -> tuple[Tensor]:
        return (table[ids].sum(dim=1).square(),)

    (expected,) = torch.autograd.grad((read(seen, ids, places)[0] * weight).sum(), table)
    (found,) = torch.autograd.grad((by_distinct(read, seen, ids, places)[0] * weight).sum(), table)
    torch.testing.assert_close(found, expected)
