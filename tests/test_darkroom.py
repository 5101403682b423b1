"""Darkroom: the rules, its oracle, its data, and what demonstrations tell."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import ROUNDING

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.data.generation import solve_tasks, write_oracle_dataset
from sdm.data.request import OracleConfig
from sdm.data.shards import parameters, read_manifest, read_shards
from sdm.data.solved_tasks import sample_tasks
from sdm.evaluation.evaluate import evaluate_untrained
from sdm.evaluation.paper import paper_column, paper_rows
from sdm.policies.posterior import posterior
from sdm.policies.registry import names, prepare
from sdm.policies.spec import choose_policies, parse_policy
from sdm.solvers_jax import DarkroomFamily, EnergyFamily, solve
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.tasks.models import check_model
from sdm.tasks.rollout import Trajectory

SMALL = DarkroomFamily(size=3)
STAY, UP, DOWN, LEFT, RIGHT = range(5)


def distance(goal, size):
    return goal // size + goal % size  # from (0, 0)


def every_goal(family):
    return family.mdp(jnp.arange(family.states, dtype=jnp.int32))


def test_moves_and_walls():
    room = every_goal(SMALL)
    check_model(room)

    def after(state, action):
        return int(room.transition[0, state, action].argmax())

    middle = 4
    assert [after(middle, a) for a in range(5)] == [4, 1, 7, 3, 5]
    assert [after(0, a) for a in (UP, LEFT)] == [0, 0]
    assert [after(8, a) for a in (DOWN, RIGHT)] == [8, 8]
    assert (np.asarray(room.initial) == np.eye(9)[0]).all()


@pytest.mark.parametrize("pays", ["stay", "arrival"])
def test_what_the_goal_pays(pays):
    room = DarkroomFamily(size=3, pays=pays).mdp(jnp.int32(4))
    paid = {tuple(map(int, x)) for x in np.argwhere(np.asarray(room.reward))}
    if pays == "stay":
        assert paid == {(4, STAY)}
    else:
        assert paid == {(4, STAY), (1, DOWN), (7, UP), (3, RIGHT), (5, LEFT)}


@pytest.mark.parametrize(("pays", "mean"), [("stay", 91.0), ("arrival", 91.99)])
def test_the_oracles_mean_over_all_goals_is_known_exactly(pays, mean):
    family = DarkroomFamily(pays=pays)
    value = np.asarray(solve(every_goal(family), horizon=100).value)
    # As many stages as are left after the way there; on arrival it pays one earlier,
    # but for the goal in which the episode starts.
    way = np.array([distance(g, 10) for g in range(100)])
    wanted = 100 - way if pays == "stay" else np.minimum(101 - way, 100)
    np.testing.assert_array_equal(value, wanted)
    assert value.mean() == pytest.approx(mean, abs=1e-12)  # sums of whole numbers


def test_goals_to_train_on_and_held_out_are_all_of_them_once():
    train, held_out = (DarkroomFamily().goals(held_out=x) for x in (False, True))
    assert len(train) == 80 and len(held_out) == 20
    assert sorted(np.concatenate([train, held_out]).tolist()) == list(range(100))
    other = DarkroomFamily(split=1).goals(held_out=True)
    assert set(other.tolist()) != set(held_out.tolist())


@pytest.mark.slow
def test_tests_never_meet_a_goal_that_was_trained_on_whatever_their_seeds():
    family = DarkroomFamily()
    config = OracleConfig(family, 5, 80, 1, seed=3)
    trained = sample_tasks(0, config=config, size=80).params["goal"]
    bed = make_benchmark(EvaluationConfig(family, 5, 20, 1, seed=4))
    assert not set(trained.tolist()) & set(bed.tasks.params["goal"].tolist())


@pytest.mark.slow
def test_a_dataset_has_the_oracles_and_random_episodes(tmp_path):
    config = OracleConfig(SMALL, 6, 5, 3, batch=2, random_trajectories=4)
    write_oracle_dataset(config, tmp_path / "data")
    shards = read_shards(tmp_path / "data")
    table = shards.to_pandas()
    table["goal"] = parameters(shards)["goal"]
    assert len(table) == 5 * 7
    assert table["random"].tolist() == 5 * (3 * [False] + 4 * [True])
    wanted = SMALL.goals(held_out=False)[:5].tolist()
    assert table["goal"].to_numpy().reshape(5, 7)[:, 0].tolist() == wanted
    returns = table["reward"].map(sum)
    assert (returns[~table["random"]] == table["value"][~table["random"]]).all()
    assert (returns <= table["value"]).all()
    q = solve(SMALL.mdp(jnp.asarray(table["goal"])), horizon=6).q
    for row, values in zip(table.itertuples(), np.asarray(q), strict=True):
        for t, (s, best) in enumerate(
            zip(row.observation, row.optimal_action, strict=True)
        ):
            assert values[t, s, best] == values[t, s].max()
            # Even when it is too late: every label leads to the goal.
            if row.random:
                goal, size = row.goal, SMALL.size
                away = abs(s // size - goal // size) + abs(s % size - goal % size)
                move = SMALL.moves[best]
                there = (s // size + move[0], s % size + move[1])
                left = abs(there[0] - goal // size) + abs(there[1] - goal % size)
                assert left == max(0, away - 1)
    manifest = read_manifest(tmp_path / "data")
    assert manifest["family_config"] == dataclasses.asdict(SMALL)
    # Ways to the goal differ where there are several shortest ones.
    oracle = table[~table["random"]]
    ways = oracle.groupby("goal")["action"].agg(lambda x: len({tuple(a) for a in x}))
    assert ways.max() > 1


def test_random_episodes_are_for_tasks_in_sight():
    with pytest.raises(ValueError, match="random_trajectories = 2"):
        OracleConfig(EnergyFamily(), 3, 2, 1, kind="pomdp", random_trajectories=2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 1}, "size = 1"),
        ({"pays": "often"}, "pays"),
        ({"discount": 1.5}, "discount = 1.5"),
        ({"training_share": 1.0}, "training_share = 1"),
        ({"split": -1}, "split = -1"),
    ],
)
def test_families_that_make_no_task_are_refused(changes, words):
    # Under test, a type checker refuses a wrong choice before the family does.
    with pytest.raises((ValueError, TypeError), match=words):
        DarkroomFamily(**changes)


def test_a_kind_that_the_family_does_not_pose_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`darkroom`: kind must be one of mdp, found"):
        OracleConfig(SMALL, 3, 2, 1, kind="pomdp")
    too_many = OracleConfig(SMALL, 3, 8, 1)
    with pytest.raises(
        ValueError, match="at most 7, the training tasks of family `darkroom`"
    ):
        write_oracle_dataset(too_many, tmp_path / "data")
    with pytest.raises(
        ValueError, match="at most 7, the training tasks of family `darkroom`"
    ):
        solve_tasks(too_many)
    with pytest.raises(
        ValueError, match="tasks = 3: must be at most 2, the test tasks of family"
    ):
        EvaluationConfig(SMALL, 3, 3, 1)


def brute_force_posterior(family, observation, action, reward):
    """Goals whose rules explain every reward of the episodes."""
    rooms = np.asarray(every_goal(family).reward)
    fits = np.array([(r[observation, action] == reward).all() for r in rooms])
    return fits / fits.sum()


@pytest.mark.slow
@pytest.mark.parametrize("pays", ["stay", "arrival"])
@pytest.mark.parametrize("demonstrations", ["optimal", "random"])
def test_demonstrations_leave_the_goals_that_explain_them(pays, demonstrations):
    family = DarkroomFamily(size=4, pays=pays)
    config = EvaluationConfig(family, 7, 3, 1, demonstrations=demonstrations)
    bed = make_benchmark(config)
    found = np.asarray(posterior(bed).weight)
    for task in range(3):
        shown = jax.tree.map(lambda x, task=task: np.asarray(x[task]), bed.support)
        wanted = brute_force_posterior(
            family, shown.observation, shown.action, shown.reward
        )
        np.testing.assert_allclose(found[task], wanted, atol=1e-9)  # 1e-12 a surprise


@pytest.mark.slow
def test_policies_without_learning_against_the_oracle():
    config = EvaluationConfig(DarkroomFamily(size=5), 20, 4, 5)
    bed = make_benchmark(config)
    results = {
        name: evaluate_untrained(name, bed) for name in names(config.family, "mdp")
    }
    assert set(results) == {
        *("oracle", "random", "mean-plan", "bc", "ce", "psrl", "qmdp"),
        *("bayes-adaptive", "bayes-imitation"),
    }
    # The goal is in the demonstrations, and copying them is optimal: the start is one.
    for name in results.keys() - {"random", "mean-plan"}:
        assert results[name].gap.mean == 0 and results[name].agreement == 1
    for name in ("oracle", "bc", "ce", "psrl", "bayes-imitation", "qmdp"):
        assert results[name].exact_gap.mean == 0
    # Staying anywhere pays as much as anywhere else: nothing is known.
    assert results["mean-plan"].exact_gap.mean > 0.5
    assert 0.5 < results["random"].exact_gap.mean < 1
    assert 0.2 < results["random"].agreement < 0.9
    assert all(result.merged_agreement is None for result in results.values())


@pytest.mark.slow
def test_posterior_sampling_is_worth_what_its_plans_are():
    config = EvaluationConfig(
        DarkroomFamily(size=3), 4, 2, 400, demonstrations="random"
    )
    bed = make_benchmark(config)
    made = prepare("psrl", bed)
    chance = np.asarray(made.policy.posterior.weight)
    assert chance.max(-1).min() < 1  # something is left to draw
    plans = solve(every_goal(bed.config.family), horizon=4)
    own = np.zeros((2, 9))
    for goal in range(9):
        table = jax.nn.one_hot(plans.policy[goal], 5, dtype=float)
        tables = jnp.broadcast_to(table, (2, *table.shape))
        own[:, goal] = evaluate_policy(bed.states, tables)
    np.testing.assert_allclose(
        made.value, (chance * own).sum(-1), rtol=0, atol=ROUNDING
    )
    played = evaluate_untrained("psrl", bed)
    # 400 returns between 0 and 4 in each task: four standard errors of at most 2 / 20.
    np.testing.assert_allclose(played.returns, made.value, atol=0.4)


@pytest.mark.slow
def test_a_goal_that_was_not_found_is_planned_for_on_average():
    family = DarkroomFamily(size=2)
    bed = make_benchmark(EvaluationConfig(family, 3, 1, 1, support=1))
    seen = jnp.zeros((1, 1, 3), jnp.int32)
    stayed = Trajectory(seen, seen, jnp.zeros((1, 1, 3)))
    bed = dataclasses.replace(bed, support=stayed)
    chance = posterior(bed).weight
    np.testing.assert_allclose(chance[0], [0, 1 / 3, 1 / 3, 1 / 3], atol=1e-9)
    plan = prepare("ce", bed).policy.probabilities.argmax(-1)
    assert plan[0, 0, 0] != STAY and plan[0, 1, 1] == STAY


def test_the_papers_rows_stand_beside_tests_like_theirs(tmp_path):
    def rows(family=None, horizon=10, kind="mdp", **more):
        options = {"tasks": 2, "trajectories": 1, **more}
        family = family or EnergyFamily()
        return paper_rows(EvaluationConfig(family, horizon, kind=kind, **options))

    assert rows()["random"] == "57.6" and rows(horizon=30)["dpt"] == "43"
    assert rows(EnergyFamily(p_min=0.1, p_max=0.2)) == {} == rows(horizon=7)
    elsewhere = EnergyFamily(p_min=0.05, p_max=0.2)  # Fig. 7
    assert [rows(elsewhere, t)["sft"] for t in (10, 20, 30)] == ["0", "6", "7"]
    assert rows(elsewhere, demonstrations="random") == {}
    assert rows(elsewhere, kind="pomdp") == {}
    assert rows(EnergyFamily(q=0.7), kind="pomdp")["sft"] == "10"
    assert rows(horizon=20, demonstrations="random")["sft"] == "20"  # Fig. 8
    assert rows(kind="pomdp", demonstrations="random") == {}
    assert rows(support=1) == {}
    assert rows(EnergyFamily(q=0.6), kind="pomdp")["sft"] == "16"
    robust = EnergyFamily(models=10, alpha=1.0)
    assert rows(robust, kind="apomdp")["dpt"] == "37"
    # A policy trained on other tasks has no gap in distribution to compare with.
    other = EnergyFamily(p_min=0.05)
    assert rows(EnergyFamily(), training_family=EnergyFamily())["dpt"] == "7"
    assert rows(EnergyFamily(), training_family=other) == {}
    assert rows(EnergyFamily(q=0.6), kind="pomdp", training_family=other) == {}
    hard = EnergyFamily(p_min=0.05, p_max=0.2)
    assert rows(hard, training_family=EnergyFamily())["sft"] == "0"
    assert rows(dataclasses.replace(robust, alpha=0.5), kind="apomdp") == {}
    room = rows(DarkroomFamily(), 100)

    def column(rows, names):
        return paper_column(rows, {name: parse_policy(name).like for name in names})

    assert column(room, ["random", "ce", "dpt:x"]) == {"random": "100"}
    run, merged = tmp_path / "run", tmp_path / "merged"
    for folder, file in ((run, "config.yaml"), (merged, "merged.json")):
        folder.mkdir()
        (folder / file).touch()
    found = column(rows(), ["icl:tiny", "dpt:x", str(run), f"icl:{merged}", "ce"])
    assert list(found.values()) == ["15.9", "7", "3", "3"]
    assert rows(DarkroomFamily(discount=0.9), 100) == {}


def test_names_stand_for_the_policies_that_fit():
    given, room, energy = ["all", "dpt:{family}-{setting}"], SMALL, EnergyFamily()
    chosen = choose_policies([*given, "always-work"], room, "mdp", several=True)
    assert chosen == [*names(room, "mdp"), "dpt:darkroom-mdp"]
    assert "always-work" in choose_policies(["always-work"], room, "mdp")
    assert choose_policies(["ce", "ce"], energy, "mdp") == ["ce"]
