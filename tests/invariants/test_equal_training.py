"""However the sentences of a step are cut into batches, the same training comes out.

Twenty steps in float64, sentences of 1 to 8 words, random canvases, the length loss, clipped
gradients; the library's own collator, batches and model. Not held equal: order within a step.
"""

import pytest
import runs
import torch

# The gradients of a step are sums in another order: 5e-14 apart after twenty steps.
TOLERANCE = 1e-12
CASES = [(name, cut) for name, (_, cuts) in runs.RECIPES.items() for cut in cuts[1:]]


@pytest.fixture(scope="module")
def folder(two_processes):
    """What two processes saved."""
    return two_processes("equal")


@pytest.fixture(scope="module")
def record(folder, tmp_path_factory):
    """What came out of a recipe that is cut in one way; each is trained once."""
    known = {}

    def of(name, cut):
        recipe, _ = runs.RECIPES[name]
        if (name, cut) not in known and cut.num_processes == 1:
            known[name, cut] = runs.record_of(recipe, cut, tmp_path_factory.mktemp("out"))
        elif (name, cut) not in known:
            known[name, cut] = torch.load(folder / runs.file_of(name, cut), weights_only=False)
        return known[name, cut]

    return of


@pytest.mark.parametrize(("name", "cut"), CASES, ids=[f"{n}: {c.name}" for n, c in CASES])
def test_each_step_the_weights_and_the_scores_are_those_of_the_first_cut(record, name, cut):
    found, expected = record(name, cut), record(name, runs.RECIPES[name][1][0])
    assert len(found["steps"]) == len(expected["steps"]) == runs.NUM_STEPS
    for step, other in zip(found["steps"], expected["steps"], strict=True):
        names = [name for name in runs.EXACT if name in other]
        assert {n: step[n] for n in names} == pytest.approx(
            {n: other[n] for n in names}, rel=0, abs=TOLERANCE
        )
    for weight, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][weight], value, rtol=0, atol=TOLERANCE)
    scores = runs.without_times(expected["scores"])
    assert runs.without_times(found["scores"]) == pytest.approx(scores, rel=0, abs=TOLERANCE)


def test_training_did_something(record):
    """Weights that stay as they were would be equal, too."""
    for name, (recipe, cuts) in runs.RECIPES.items():
        start = runs.whole_weights(runs.make_model(**recipe.config))
        end = record(name, cuts[0])["weights"]
        assert max(float((end[n] - w).abs().max()) for n, w in start.items()) > 0.01


@pytest.mark.parametrize("part", [0, 1], ids=["from the start", "resumed"])
def test_a_budget_of_time_ends_both_processes_at_one_step_with_one_rate_at_each(of_each, part):
    """Their own clocks differ: by them each rate would, too."""
    first, second = (records[part] for records in of_each("timed"))
    names = (*runs.EXACT, "learning_rate", "elapsed_minutes", "step")
    known = [[{n: log[n] for n in names} for log in each["steps"]] for each in (first, second)]
    assert known[0] == known[1]
    assert first["minutes"] == second["minutes"] >= 0.03
    assert len({log["learning_rate"] for log in first["steps"]}) > 2
    for name, weight in first["weights"].items():
        assert weight.equal(second["weights"][name])
