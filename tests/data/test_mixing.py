import pytest
from datasets import Dataset

from axe_hf.data.mixing import mix


def test_sets_without_weights_are_joined():
    sets = [Dataset.from_dict({"n": [1, 2]}), Dataset.from_dict({"n": [3]})]
    assert mix(sets)["n"][:] == [1, 2, 3]
    assert mix(sets[:1]) is sets[0]


@pytest.mark.parametrize(
    ("sizes", "weights", "counts"),
    [
        ((60, 2), (3, 1), (60, 20)),  # the small one ten times
        ((60, 2), (300, 100), (60, 20)),
        ((5, 60), (1, 1), (60, 60)),
        ((10, 10, 10), (1, 2, 1), (10, 20, 10)),
        ((7, 3), (1, 1), (7, 7)),  # twice, and its first row once more
    ],
)
def test_weights_say_how_many_rows_an_epoch_has_of_each_set(sizes, weights, counts, caplog):
    sets = [Dataset.from_dict({"n": [100 * k + i for i in range(n)]}) for k, n in enumerate(sizes)]
    rows = mix(sets, weights)["n"][:]
    assert tuple(sum(n // 100 == k for n in rows) for k in range(len(sizes))) == counts
    assert set(rows) == {n for one in sets for n in one["n"]}  # no row is lost
    assert f"an epoch has {counts[0]} of {sizes[0]} and" in caplog.text
