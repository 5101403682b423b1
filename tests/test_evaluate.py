"""Policies on one benchmark: the same tasks, demonstrations and random numbers."""

import dataclasses
import io

import jax
import numpy as np
import pytest
from rich.console import Console

from sdm.commands.eval_report import Players, table_of
from sdm.data.agreement import oracle_actions
from sdm.data.benchmark import EvaluationConfig, make_benchmark, task_returns
from sdm.data.solved_tasks import sample_tasks
from sdm.evaluation.evaluate import (
    check_policy,
    evaluate,
    evaluate_stepwise,
    evaluate_untrained,
)
from sdm.evaluation.gap_table import IN_MODELS, gap_table
from sdm.evaluation.paper import caption
from sdm.evaluation.tables import result_row, result_rows, save_gap_figure
from sdm.llm.acting import language_model_policy
from sdm.llm.bases import load_base
from sdm.llm.cached_rows import CachedRows
from sdm.llm.recipes import FinetuneConfig
from sdm.llm.run_folder import RunHeader
from sdm.llm.runs import LoadedRun
from sdm.policies.registry import names, prepare
from sdm.policies.spec import ActingOptions
from sdm.solvers_jax import DarkroomFamily, EnergyFamily, TabularPolicy
from sdm.tasks import families
from sdm.tasks.rollout import rollout, task_keys
from sdm.tasks.streams import Stream, stream_key

CONFIG = EvaluationConfig(EnergyFamily(), horizon=6, tasks=12, trajectories=4, seed=3)


@pytest.fixture(scope="module")
def bed():
    return make_benchmark(CONFIG)


def test_the_oracle_has_no_gap(bed):
    result = evaluate_untrained("oracle", bed)
    assert result.gap.mean == 0 and result.agreement == 1
    assert result.exact_gap.mean == pytest.approx(0, abs=1e-12)  # rounding


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting", ["mdp", "pomdp", pytest.param("apomdp", marks=pytest.mark.slow)]
)
def test_what_is_tested_and_shown_was_never_trained_on(setting):
    family = EnergyFamily(models=3) if setting == "apomdp" else EnergyFamily()
    config = EvaluationConfig(family, 3, 6, 2, seed=3, kind=setting)
    bed = make_benchmark(config)
    trained = sample_tasks(0, config=config.oracle, size=50)
    assert not {*np.ravel(bed.tasks.params["p"])} & {*np.ravel(trained.params["p"])}
    if setting == "apomdp":
        sets = (np.ravel(t.divergence[:, 1:]) for t in (bed.tasks, trained))
        assert not set.intersection(*map(set, sets))  # the first is the true model
    # Demonstrations are other episodes than those that policies are measured by.
    played = task_keys(stream_key(config.seed, Stream.TEST_EPISODES), config.tasks)
    best = rollout(played, bed.tasks.world, bed.oracle, horizon=3, episodes=2)
    assert (best.observation != bed.support.observation).any()
    again = task_returns(bed.tasks, best)
    np.testing.assert_allclose(again, bed.optimal_returns, rtol=1e-12)  # rounding


@pytest.mark.slow
@pytest.mark.parametrize("name", names(EnergyFamily(), "mdp"))
def test_every_baseline_is_played_and_valued(bed, name):
    result = evaluate_untrained(name, bed)
    assert -0.5 < result.gap.mean < 1 and -1e-12 <= result.exact_gap.mean < 1
    assert result.exact_return_mean > 0 and result.invalid_mass is None
    assert 0 <= result.agreement <= result.merged_agreement <= 1
    if name == "random":  # of two ways to charge, one is not the oracle's
        assert result.agreement < result.merged_agreement


def test_estimated_gaps_tend_to_the_exact_ones():
    many = dataclasses.replace(CONFIG, trajectories=600)
    result = evaluate_untrained("random", make_benchmark(many))
    # Twelve tasks' own noise is 0.003 at 600 episodes; four of these.
    assert result.gap.mean == pytest.approx(result.exact_gap.mean, abs=0.012)


@pytest.mark.slow
def test_stepping_in_groups_gives_what_the_compiled_loop_gives(bed, monkeypatch):
    monkeypatch.setattr("sdm.evaluation.evaluate.ROWS_TOGETHER", 20)  # 5 tasks a group
    whole = evaluate_untrained("random", bed)
    done = []

    def policy(group):
        return TabularPolicy(prepare("random", bed).policy.probabilities[group])

    stepped = evaluate_stepwise(
        "stepped", bed, policy, progress=lambda n, total: done.append((n, total))
    )
    np.testing.assert_array_equal(stepped.returns, whole.returns)
    assert done == [(5, 12), (10, 12), (12, 12)]
    assert stepped.exact_gap is None


@pytest.mark.slow
def test_what_a_prior_is_can_differ_from_what_is_tested():
    low = EnergyFamily(p_min=0.05, p_max=0.2)
    options = {"horizon": 20, "tasks": 40, "trajectories": 1}
    knows = EvaluationConfig(low, **options)
    mistaken = EvaluationConfig(low, **options, training_family=EnergyFamily())
    gaps = [
        evaluate_untrained("mean-plan", make_benchmark(config)).exact_gap.mean
        for config in (knows, mistaken)
    ]
    assert gaps[0] < 0.02 and gaps[1] > 0.3


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["ce", "psrl", "bayes-adaptive", "bayes-imitation", "bc"]
)
def test_who_reads_demonstrations_has_the_training_prior_too(name):
    """Elsewhere than p lies, each errs as who believes in that: from no other test."""
    low = EnergyFamily(p_min=0.05, p_max=0.2)
    options = {"horizon": 6, "tasks": 20, "trajectories": 1}
    values = [
        evaluate_untrained(
            name,
            make_benchmark(EvaluationConfig(low, **options, training_family=prior)),
        ).exact_return_mean
        for prior in (None, EnergyFamily(p_min=0.8, p_max=0.9))
    ]
    assert values[0] != values[1]


@pytest.mark.slow
def test_tasks_are_the_same_whatever_their_number(bed):
    fewer = make_benchmark(dataclasses.replace(CONFIG, tasks=5))
    np.testing.assert_array_equal(fewer.tasks.params["p"], bed.tasks.params["p"][:5])
    np.testing.assert_array_equal(fewer.support.action, bed.support.action[:5])
    np.testing.assert_array_equal(fewer.optimal_returns, bed.optimal_returns[:5])


@pytest.mark.slow
def test_a_base_that_has_learned_nothing_plays(bed):
    (result,) = evaluate(["icl:tiny"], bed)
    assert result.gap.mean > 0.1 and result.agreement < 0.9
    # Random weights give each of some sixty tokens its share, and three are actions.
    assert 0.8 < result.invalid_mass < 1


def test_a_run_tested_otherwise_than_it_was_trained_is_pointed_out(bed, monkeypatch):
    base, tokenizer = load_base("tiny")
    header = RunHeader(
        family="energy",
        kind="mdp",
        family_config=EnergyFamily().config(),
        observes_reward=True,
        horizon=3,
        config=FinetuneConfig("data", "tiny", schema="compact", support=7),
        base=None,
    )
    run = LoadedRun(base, tokenizer, header)
    monkeypatch.setattr("sdm.llm.acting.load_run", lambda folder, **how: run)
    with pytest.warns(UserWarning, match=r"with horizon = 3, support = 7; evaluated"):
        language_model_policy("some-run", bed)


def test_names_that_are_no_policy_are_refused(tmp_path):
    base = "icl:meta-llama/Llama-2-7b-hf"
    for name in ("ce", "oracle", "icl:tiny", "icl:gpt2", base):
        check_policy(name, CONFIG)
    for name in ("optimal", str(tmp_path)):
        with pytest.raises(ValueError, match="unknown policy"):
            check_policy(name, CONFIG)
    for name in ("start", "iteration-9", "iteration-10"):
        (tmp_path / name / "run").mkdir(parents=True)
    last = tmp_path / "iteration-10" / "run"
    with pytest.raises(ValueError, match=f"a folder of runs: .* the last, `{last}`"):
        check_policy(str(tmp_path), CONFIG)
    with pytest.raises(ValueError, match="unknown base `smolm2`"):
        check_policy("icl:smolm2", CONFIG)
    with pytest.raises(
        ValueError,
        match="does not fit pomdp tasks of family `energy`: it is for",
    ):
        check_policy("mixture", dataclasses.replace(CONFIG, kind="pomdp"))


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": 0},
        {"trajectories": 0},
        {"support": -1},
    ],
)
def test_counts_that_make_no_test_are_refused(changes):
    with pytest.raises(ValueError, match="must be"):
        dataclasses.replace(CONFIG, **changes)


@pytest.fixture(
    scope="module", params=["pomdp", pytest.param("apomdp", marks=pytest.mark.slow)]
)
def hidden(request):
    family = EnergyFamily(q=0.7, models=2)
    options = {"horizon": 3, "tasks": 6, "trajectories": 40, "kind": request.param}
    return make_benchmark(EvaluationConfig(family, **options))


@pytest.mark.slow
def test_hidden_tasks_have_an_oracle_that_others_are_measured_by(hidden):
    results = {
        name: evaluate_untrained(name, hidden)
        for name in names(EnergyFamily(), "pomdp")
    }
    assert results["oracle"].gap.mean == 0 and results["oracle"].agreement == 1
    random = results["random"]
    assert 0.2 < random.gap.mean < 0.9 and random.exact_gap is None
    # A mean of 240 returns of standard deviation 0.6: four standard errors.
    exact = random.exact_return_mean
    assert random.return_mean == pytest.approx(exact, abs=4 * 0.6 / 240**0.5)


@pytest.mark.slow
def test_the_oracle_is_asked_in_the_belief_that_was_come_to(hidden):
    from sdm.tasks.rollout import rollout, task_keys

    keys = task_keys(jax.random.key(5), 6)
    options = {"horizon": 3, "episodes": 4}
    own = rollout(keys, hidden.tasks.world, hidden.oracle, **options)
    np.testing.assert_array_equal(oracle_actions(hidden, own), own.action)
    other = prepare("random", hidden).policy
    played = rollout(keys, hidden.tasks.world, other, **options)
    wanted = oracle_actions(hidden, played)
    assert (wanted[..., 0] == own.action[..., 0]).all()  # nothing has been done yet
    bayes, seen = hidden.oracle.filter, played.observation
    state = bayes.see_first(bayes.start(4), seen[..., 0])
    state = bayes.update(state, played.action[..., 0], seen[..., 1])
    second = hidden.solution.action(1, state.belief)
    np.testing.assert_array_equal(wanted[..., 1], second)


def test_demonstrations_can_be_random_ones(bed):
    shown = make_benchmark(dataclasses.replace(CONFIG, demonstrations="random"))
    assert np.isin([0, 1, 2], shown.support.action).all()
    # The oracle never takes the second name of charging.
    assert not (np.asarray(bed.support.action) == 1).any()
    np.testing.assert_array_equal(shown.optimal_returns, bed.optimal_returns)


def test_played_groups_are_not_played_again(bed, tmp_path, monkeypatch):
    monkeypatch.setattr("sdm.evaluation.evaluate.ROWS_TOGETHER", 20)  # 5 tasks a group
    table, played = prepare("random", bed).policy.probabilities, []

    def policy(group):
        if len(played) == 2 and group.start == 10:
            raise KeyboardInterrupt
        played.append(group.start)
        return TabularPolicy(table[group])

    with pytest.raises(KeyboardInterrupt):
        evaluate_stepwise("stepped", bed, policy, kept=tmp_path / "0")
    assert {path.name for path in tmp_path.iterdir()} == {"0-0.npz", "0-5.npz"}
    played.append(None)
    result = evaluate_stepwise("stepped", bed, policy, kept=tmp_path / "0")
    assert played == [0, 5, None, 10]
    whole = evaluate_untrained("random", bed)
    np.testing.assert_array_equal(result.returns, whole.returns)
    assert result.agreement == whole.agreement


@pytest.mark.slow
def test_groups_that_another_machine_played_are_taken(bed, tmp_path):
    """Of other sizes, where more or fewer episodes fit the memory."""
    table, played = prepare("random", bed).policy.probabilities, []

    def policy(group):
        if len(played) == 2 and group.stop - group.start == 2:
            raise KeyboardInterrupt
        played.append((group.start, group.stop))
        return TabularPolicy(table[group])

    with pytest.raises(KeyboardInterrupt):
        evaluate_stepwise("stepped", bed, policy, rows=8, kept=tmp_path / "0")
    done = []
    result = evaluate_stepwise(
        "stepped",
        bed,
        policy,
        rows=23,
        kept=tmp_path / "0",
        progress=lambda n, total: done.append((n, total)),
    )
    assert played == [(0, 2), (2, 4), (4, 9), (9, 12)]
    assert done == [(2, 12), (4, 12), (9, 12), (12, 12)]
    whole = evaluate_untrained("random", bed)
    np.testing.assert_array_equal(result.returns, whole.returns)


@pytest.mark.slow
@pytest.mark.parametrize("support", [0, 2])
@pytest.mark.parametrize("schema", ["compact", "paper"])
def test_a_language_model_plays_what_fits_the_memory(bed, monkeypatch, schema, support):
    """As much as is said beforehand, give or take padding, with the same results."""
    bed = make_benchmark(dataclasses.replace(CONFIG, support=support, tasks=6))
    (whole,) = evaluate(["icl:tiny"], bed, ActingOptions(schema=schema))
    asked, most = [], 0

    def room_for(model, tokens):
        nonlocal most
        most = 0  # what the check of the cache held
        asked.append(tokens)
        return 9  # two tasks of four episodes

    class Weighed(CachedRows):
        def score(self, *args):
            nonlocal most
            found = super().score(*args)
            most = max(most, self.nbytes)
            return found

    monkeypatch.setattr("sdm.llm.acting.rows_that_fit", room_for)
    monkeypatch.setattr("sdm.llm.cache_check.CachedRows", Weighed)
    done = []
    (parted,) = evaluate(
        ["icl:tiny"],
        bed,
        ActingOptions(schema=schema),
        progress=lambda _, n, total: done.append(n),
    )
    assert done == [2, 4, 6]
    np.testing.assert_array_equal(parted.returns, whole.returns)
    config = load_base("tiny")[0].config
    heads = config.num_key_value_heads * config.head_dim
    a_token = 2 * config.num_hidden_layers * heads * 4
    # The last reward is not read, and rewards take more or fewer characters.
    assert most == pytest.approx(8 * asked[0] * a_token, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("schema", ["compact", "paper"])
def test_a_language_model_acts_in_darkroom_without_demonstrations(schema):
    config = EvaluationConfig(DarkroomFamily(size=3), 4, 2, 1, support=0)
    (result,) = evaluate(
        ["icl:tiny"], make_benchmark(config), ActingOptions(schema=schema)
    )
    assert 0 < result.invalid_mass < 1


@pytest.mark.slow
def test_episodes_of_a_task_that_may_not_fit_are_pointed_out(bed):
    table = prepare("random", bed).policy.probabilities
    with pytest.warns(UserWarning, match="hold 3 of a task's 4 episodes"):
        evaluate_stepwise("x", bed, lambda group: TabularPolicy(table[group]), rows=3)


def test_results_become_a_table_and_a_figure(bed, tmp_path):
    rows = {n: result_row(evaluate_untrained(n, bed)) for n in ("random", "oracle")}
    table = gap_table(rows, {"random": "57.6"})
    assert table.row_count == 2
    assert list(table.columns[4].cells) == ["57.6", ""]
    shown = next(iter(table.columns[1].cells))
    assert shown == f"{rows['random']['gap_percent']:.2f}"
    save_gap_figure(rows, "gaps", tmp_path / "gaps")
    assert (tmp_path / "gaps.png").stat().st_size > 5000
    assert (tmp_path / "gaps.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("width", [72, 80, 110, 160])
def test_a_narrow_table_leaves_columns_out_and_cuts_no_number(bed, width):
    results = [evaluate_untrained(name, bed) for name in ("random", "ce")]
    rows = result_rows(results, reference="ce")
    printed = io.StringIO()
    console = Console(file=printed, width=width)
    console.print(gap_table(rows, {"random": "57.6"}, reference="ce", caption="below"))
    shown = printed.getvalue()
    assert max(map(len, shown.splitlines())) <= width and "…│" not in shown
    row = rows["random"]
    for number in (
        f"{row['gap_percent']:.2f} │",
        f"{row['ci_low']:.2f} … {row['ci_high']:.2f} │",
        f"({row['difference_low']:.2f} … {row['difference_high']:.2f}) │",
        "57.6 │",
    ):
        assert number in shown, number
    assert ("seconds" in shown.split("below")[0]) == (width == 160)
    assert ("columns hidden: seconds" in shown) == (width < 160)
    assert "below" in shown


@pytest.mark.parametrize(
    ("family", "kind", "words"),
    [
        (EnergyFamily(), "mdp", "20 and 30"),
        (EnergyFamily(), "apomdp", "--alpha 1"),
        (DarkroomFamily(), "mdp", "--horizon 100"),
    ],
)
def test_the_caption_says_which_tests_the_paper_reports(family, kind, words):
    assert words in caption({}, family, kind)
    assert "no such test" in caption({}, family, kind)
    assert "DPT 7" in caption({"dpt": "7"}, family, kind)


def test_sets_of_one_model_have_a_note_on_what_is_not_computed(bed):
    rows = result_rows([evaluate_untrained("random", bed)])
    report = {"policies": rows, "paper": {}}

    def said(kind, **measured):
        config = EvaluationConfig(EnergyFamily(models=1), 10, 2, 2, kind=kind)
        rows["random"] |= measured
        return table_of(Players(config, ["random"], None), report).caption or ""

    assert "raise `--K`" in said("apomdp")
    assert "raise `--K`" not in said("mdp")
    measured = dict.fromkeys((f"{name}_gap_percent" for name in IN_MODELS), 1.0)
    assert "raise `--K`" not in said("apomdp", **measured)


def test_a_family_that_the_paper_does_not_have_has_no_caption():
    assert caption({}, families()["inventory"](), "mdp") == ""


def test_rows_are_in_per_cent_and_differences_are_to_the_reference(bed):
    results = [evaluate_untrained(name, bed) for name in ("random", "ce", "oracle")]
    rows = result_rows(results, reference="ce")
    assert list(rows) == ["oracle", "ce", "random"]
    for result in results:
        row = rows[result.policy]
        assert row["gap_percent"] == pytest.approx(100 * result.gap.mean)
        assert row["ci_low"] == pytest.approx(100 * result.gap.low)
        assert row["ci_high"] == pytest.approx(100 * result.gap.high)
        assert row["exact_gap_percent"] == pytest.approx(100 * result.exact_gap.mean)
    # The estimate of the difference can be another one than those of the gaps.
    by = rows["random"]["difference_estimator"] + "_percent"
    worse = rows["random"][by] - rows["ce"][by]
    assert worse > 20
    found = [rows["random"][f"difference_{n}"] for n in ("percent", "low", "high")]
    # Both gaps are means over the same tasks.
    assert found[0] == pytest.approx(worse) and found[1] < found[0] < found[2]
    assert rows["ce"]["difference_percent"] == 0


@pytest.mark.slow
def test_a_single_task_has_a_row_without_an_interval():
    one = make_benchmark(dataclasses.replace(CONFIG, tasks=1))
    row = result_row(evaluate_untrained("random", one))
    assert row["ci_low"] is None and row["gap_percent"] > 0
