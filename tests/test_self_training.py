"""Self-training: what is selected, written, trained on, and resumed."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from safetensors.torch import load_file
from training_support import QUIET
from typer.testing import CliRunner

from sdm.cli import app
from sdm.data.generation import write_oracle_dataset
from sdm.data.request import OracleConfig
from sdm.data.shards import read_manifest, read_shards
from sdm.evaluation.evaluate import evaluate as run_evaluation
from sdm.llm.acting import Situation
from sdm.llm.self_training import iterations
from sdm.llm.self_training.config import SelfTrainConfig
from sdm.llm.self_training.dataset import write_dataset
from sdm.llm.self_training.iterations import self_train
from sdm.llm.self_training.kept import NothingToLearnError, selected
from sdm.llm.self_training.play import _keys, _maker, draw, random_play
from sdm.llm.self_training.results import report_of
from sdm.llm.self_training.selection import Scenarios, scores, select
from sdm.llm.texts import episodes_by_task
from sdm.llm.training_data import read_training_data
from sdm.solvers_jax import DarkroomFamily, EnergyFamily, solve
from sdm.storage.files import partial_folder
from sdm.tasks import load_family
from sdm.tasks.families.bandit import BanditFamily

pytestmark = QUIET
run = CliRunner().invoke
KEY = jax.random.key(0)


def small(**changes):
    """Return a configuration that a test can afford; its model stays near random."""
    options = {
        "family": EnergyFamily(),
        "horizon": 3,
        "support": 1,
        "iterations": 2,
        "scenarios": 6,
        "episodes": 4,
        "keep": 1,
        "random_trajectories": 2,
        "start_scenarios": 8,
        "invalid_limit": 1.0,
        "test_tasks": 3,
        "test_trajectories": 2,
        "seed": 5,
        # Of a single step, the learning rate would be that of the warm-up's start: 0.
        "training": {"batch_size": 2},
    }
    return SelfTrainConfig(**(options | changes))


def without_seconds(report):
    """Return a report without what differs between two runs of one machine."""
    if isinstance(report, dict):
        return {k: without_seconds(x) for k, x in report.items() if k != "seconds"}
    return [without_seconds(x) for x in report] if isinstance(report, list) else report


# Selection


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_no_other_choice_has_a_lower_score(keep):
    score = np.random.default_rng(keep).integers(0, 4, (20, 5)).astype(float)
    score[3] = 1.0  # no spread
    kept = select(score, keep, key=KEY)
    for own, mask in zip(score, kept, strict=True):
        if np.ptp(own) == 0:
            assert not mask.any()
            continue
        assert mask.sum() == keep
        best = min(sum(own[list(c)]) for c in itertools.combinations(range(5), keep))
        assert own[mask].sum() == best


def test_across_scenarios_the_best_of_all_are_kept():
    score = np.random.default_rng(0).normal(size=(6, 5))
    score[2] += 100  # a scenario that pays little
    kept = select(score, 2, key=KEY, across=True)
    assert sorted(score[kept]) == sorted(score.ravel())[:12]
    assert not kept[2].any()
    assert not select(np.ones((6, 5)), 2, key=KEY, across=True).any()


@pytest.mark.parametrize("equal", [(0.0, 0.0, 0.0), (0.1 + 0.2, 0.3, 0.3)])
def test_the_key_decides_between_equal_scores(equal):
    score = np.array([[equal[0], 1.0, *equal[1:]]])
    masks = [select(score, 1, key=k)[0] for k in jax.random.split(KEY, 300)]
    count = np.sum(masks, 0)
    assert (select(score, 1, key=KEY) == select(score, 1, key=KEY)).all()
    # Binomial(300, 1/3) has a standard deviation of 8.2: five of them.
    assert count[1] == 0 and (np.abs(count[[0, 2, 3]] - 100) < 41).all()


def test_differences_by_rounding_are_no_spread():
    score = np.array([[0.1 + 0.2, 0.3, 0.3], [0.0, 1e-6, 1.0]])
    assert select(score, 1, key=KEY).tolist() == [[False] * 3, [True, False, False]]


@pytest.mark.parametrize("keep", [0, 3, 4])
def test_keeping_all_or_more_is_an_error(keep):
    with pytest.raises(ValueError, match="keep"):
        select(np.zeros((2, 3)), keep, key=KEY)


def test_a_score_that_is_not_finite_is_an_error():
    score = np.zeros((2, 3))
    score[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"score\[\(1, 2\)\] = nan"):
        select(score, 1, key=KEY)


# Play


def test_episodes_of_each_iteration_have_keys_of_their_own():
    config = small(family=DarkroomFamily(size=4), scenarios=5)  # they come round again
    keys = [np.asarray(jax.random.key_data(_keys(config, range(5), i))) for i in (1, 2)]
    again = np.asarray(jax.random.key_data(_keys(config, range(5), 1)))
    assert (keys[0] == again).all()
    assert len({tuple(key) for key in np.concatenate(keys)}) == 10


def test_a_model_plays_at_the_temperature_of_play(play):
    none = jax.tree.map(lambda x: x[:, :0], play.played)
    situation = Situation(none, play.played, (0.0, 1.0))
    config = small(temperature=2.5, test_temperature=0.5, support=0)
    assert _maker(config, "tiny", situation).temperature == 2.5


def test_the_test_samples_at_its_own_temperature_and_greedily(tmp_path, monkeypatch):
    asked = []

    def evaluate(names, bed, options, **how):
        asked.append((*names, options.temperature))
        return run_evaluation(names, bed, options, **how)

    monkeypatch.setattr(iterations, "evaluate", evaluate)
    config = small(temperature=2.5, test_temperature=0.5)
    steps = iterations._Steps(config, tmp_path, lambda *_: None)
    row = steps._test("tiny", tmp_path / "start")
    assert asked == [("icl:tiny", 0.5), ("icl:tiny", 0.0)]
    # All actions have about the same probability, and the most probable one is fixed.
    assert row["gap_percent"] != row["greedy_gap_percent"]


# Scores


@pytest.fixture(scope="module")
def play():
    """Three random episodes of three stages in each of eight scenarios."""
    return random_play(small(keep=3))


def scenarios_of(play, config):
    size = len(play.played.action)
    return Scenarios(config.tasks(size, 1), play.tasks, play.played)


def test_scores_are_those_computed_episode_by_episode(play):
    found = scenarios_of(play, small())
    q = np.asarray(solve(play.tasks.model, horizon=3).q)
    reward, action, state = (
        np.asarray(getattr(play.played, name))
        for name in ("reward", "action", "observation")
    )
    factor = [float(play.tasks.world.discount) ** t for t in range(3)]
    for s in range(len(reward)):
        returns = [sum(np.multiply(factor, episode)) for episode in reward[s]]
        for e in range(3):
            here = [q[s, t, state[s, e, t]] for t in range(3)]
            lost = sum(
                factor[t] * (here[t].max() - here[t][action[s, e, t]]) for t in range(3)
            )
            wanted = {
                "regret": max(returns) - returns[e],
                "reward": -returns[e],
                "pseudo-regret": lost,
            }
            for name, value in wanted.items():
                # Sums of three rewards below 10: rounding of 1e-14.
                got = scores()[name].score(found)[s, e]
                assert got == pytest.approx(value, abs=1e-12), name
    assert {n for n, score in scores().items() if score.across} == {"reward"}


@pytest.mark.slow
def test_full_information_compares_with_the_best_arm_of_the_episode():
    options = {"arms": 3, "feedback": "full", "law": "bernoulli", "separation": 0.4}
    family = load_family("bandit", options)
    config = small(family=family, horizon=7, support=0, keep=3)
    play = random_play(config)
    lost = scores()["regret"].score(scenarios_of(play, config))
    paid = np.asarray(family.shown(play.played.observation))  # of the round before
    for s, e in np.ndindex(lost.shape):
        shown = paid[s, e, 1:]
        own = sum(shown[t, play.played.action[s, e, t]] for t in range(6))
        assert lost[s, e] == max(shown.sum(0)) - own


def test_pseudo_regret_of_ambiguous_tasks_is_refused():
    with pytest.raises(ValueError, match="one of regret, reward for kind apomdp"):
        small(kind="apomdp", select="pseudo-regret")


# Datasets


@pytest.fixture(scope="module")
def written(play, tmp_path_factory):
    """A dataset of the best of random play, and what it was made of."""
    config = small(keep=3)
    kept = np.zeros(play.played.action.shape[:2], bool)
    kept[[0, 0, 2, 5], [0, 2, 1, 0]] = True
    folder = tmp_path_factory.mktemp("data") / "data"
    write_dataset(folder, config, play, kept, {"kept": 4})
    return config, play, kept, folder


def test_a_dataset_has_the_kept_episodes_and_random_ones_of_their_tasks(written):
    _, play, kept, folder = written
    table, manifest = read_shards(folder), read_manifest(folder)
    own, random = episodes_by_task(table), episodes_by_task(table, random=True)
    assert list(own) == list(random) == [0, 2, 5] and manifest["tasks"] == 3
    # Kept episodes come first: two, one and one of them, then two random ones.
    names = ("task", "episode", "random")
    found = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    assert found == [
        (task, episode, episode >= kept_here)
        for task, kept_here in ((0, 2), (2, 1), (5, 1))
        for episode in range(kept_here + 2)
    ]
    for part, played, chosen in (
        (own, play.played, kept),
        (random, play.random, np.repeat(kept.any(-1)[:, None], 2, 1)),
    ):
        for task, episodes in part.items():
            numbers = np.flatnonzero(chosen[task])
            for number, each in zip(numbers, episodes, strict=True):
                for name in ("observation", "action", "reward"):
                    array = np.asarray(getattr(played, name))[task, number]
                    assert tuple(array.tolist()) == getattr(each.episode, f"{name}s")
    unknown = [e.better for episodes in random.values() for e in episodes]
    assert set(unknown) == {(None,) * 3}
    p = table["parameters"].combine_chunks().field("p").to_numpy()
    assert np.array_equal(
        np.unique(p), np.unique(np.asarray(play.tasks.params["p"])[[0, 2, 5]])
    )


def test_texts_end_with_kept_episodes_after_random_demonstrations(written):
    config, _, _, folder = written
    data = read_training_data(config.finetuning(str(folder), "tiny"))
    table = read_shards(folder)
    own, random = episodes_by_task(table), episodes_by_task(table, random=True)
    texts = [*data.train, *data.validation]
    assert len(texts) == 3 * config.keep
    for text in texts:
        *shown, query = text.text.split("\n")
        render = data.schema.render
        assert query in {render(e.episode) for e in own[text.task]}
        assert set(shown) <= {render(e.episode) for e in random[text.task]}
        actions = data.schema.parse(query).actions
        assert text.wanted == (None,) * 3 + actions  # demonstrations have no label


@pytest.mark.slow
def test_random_demonstrations_are_those_of_an_oracle_dataset(written, tmp_path):
    config, _, _, folder = written
    request = OracleConfig(
        config.family, 3, 6, 1, config.seed, random_trajectories=2, batch=8
    )
    write_oracle_dataset(request, tmp_path / "oracle")
    oracle = episodes_by_task(read_shards(tmp_path / "oracle"), random=True)
    ours = episodes_by_task(read_shards(folder), random=True)
    for task, episodes in ours.items():
        same = [e.episode for e in oracle[task]]
        assert [e.episode for e in episodes] == same


def test_random_play_is_learned_with_all_tokens():
    config = small(training={"loss": "actions", "epochs": 2})
    start = config.finetuning("data", "tiny", iteration=0)
    assert (start.loss, start.epochs) == ("all", 2)
    assert config.finetuning("data", "run").loss == "actions"


def test_random_queries_need_an_oracle(written):
    config, _, _, folder = written
    asking = config.finetuning(str(folder), "tiny")
    with pytest.raises(ValueError, match="lacks, since its policy is `self-training`"):
        read_training_data(type(asking)(**{**vars(asking), "queries": "all"}))


# Scenarios


def test_every_iteration_has_new_scenarios_or_comes_round_again():
    config = small()
    spans = [config.scenarios_of(i) for i in range(4)]
    assert [(s.start, s.stop) for s in spans] == [(0, 8), (8, 14), (14, 20), (20, 26)]
    room = small(family=DarkroomFamily(size=4), scenarios=5, start_scenarios=99)
    spans = [room.scenarios_of(i) for i in range(5)]
    most = room.family.available("train")
    assert most == 13 and spans[0] == range(13)
    assert [s.start for s in spans[1:]] == [0, 5, 0, 5]


def test_the_start_can_have_a_family_of_its_own(tmp_path):
    clear = BanditFamily(arms=2, separation=1.0)
    config = small(
        family=BanditFamily(arms=2), support=0, start_family=clear, start_scenarios=50
    )
    start = random_play(config)
    mean = np.asarray(start.tasks.params["mean"])
    np.testing.assert_array_equal(np.sort(mean[:, 0]), [[0, 1]] * 50)
    assert np.array_equal(
        start.played.reward, np.take_along_axis(mean, start.played.action, -1)
    )
    write_dataset(tmp_path / "data", config, start, np.ones((50, 1), bool), {})
    options = read_manifest(tmp_path / "data")["family_config"]
    assert options["separation"] == 1.0
    later = np.asarray(draw(config, config.scenarios_of(1), 1).params["mean"])
    np.testing.assert_allclose(np.sort(later[:, 0]), [[0.4, 0.6]] * 6)
    described = config.describe()
    assert described["start_family"]["family_config"]["separation"] == 1.0
    json.dumps(described)
    assert "start_family" not in small().describe()


def test_equal_returns_give_nothing_to_learn_from(play):
    config = small()
    zero = jnp.zeros_like(play.played.reward)
    idle = play._replace(played=type(play.played)(*_parts(play.played)[:2], zero))
    with pytest.raises(NothingToLearnError, match="0 of 8 scenarios have a spread"):
        selected(config, 1, idle)
    one = idle._replace(
        played=type(play.played)(*_parts(play.played)[:2], zero.at[0, 0, 0].set(1))
    )
    with pytest.raises(NothingToLearnError, match="1 of 8 scenarios have a spread"):
        selected(config, 1, one)


def test_a_model_that_emits_other_texts_is_not_trained_on(play):
    play = play._replace(invalid=0.3)
    kept, about = selected(small(invalid_limit=0.3), 1, play)
    assert kept.any() and about["invalid_mass"] == 0.3
    with pytest.raises(NothingToLearnError, match=r"puts 30\.0 % .* limit of 20 %"):
        selected(small(invalid_limit=0.2), 1, play)
    with pytest.raises(NothingToLearnError, match="puts nan %"):
        selected(small(), 1, play._replace(invalid=float("nan")))


@pytest.mark.parametrize(
    ("start", "iteration", "hint"),
    [
        (8, 1, "raise `--start-scenarios` or `--epochs`"),
        (0, 1, "train on random play first"),
        (8, 2, "lower `--learning-rate`"),
        (0, 2, "lower `--learning-rate`"),
    ],
)
def test_the_hint_says_what_helps_against_other_texts(start, iteration, hint, play):
    config = small(base="smollm2", start_scenarios=start, invalid_limit=0.2)
    with pytest.raises(NothingToLearnError) as error:
        selected(config, iteration, play._replace(invalid=0.3))
    assert error.value.hint.startswith(hint)


def _parts(played):
    return played.observation, played.action, played.reward


# The loop


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run, not to be changed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return self_train(small(), out), out


@pytest.mark.slow
def test_a_run_is_made_of_ordinary_folders(whole):
    report, out = whole
    assert report == json.loads((out / "results.json").read_text())
    places = [out / "start", out / "iteration-1", out / "iteration-2"]
    assert [row["iteration"] for row in report["iterations"]] == [0, 1, 2]
    for before, place in itertools.pairwise([None, *places]):
        names = {path.name for path in place.iterdir()}
        assert names == {"data", "run", "results.json"}
        config = yaml.safe_load((place / "run" / "config.yaml").read_text())["finetune"]
        assert config["data"] == str(place / "data") and config["base"] == "tiny"
        assert config["start"] == (before and str(before / "run"))
        assert read_manifest(place / "data")["policy"] == "self-training"
    for text in out.rglob("*"):
        if text.suffix in (".json", ".yaml", ".md"):
            assert "run.partial" not in text.read_text(), text
    weights = [load_file(p / "run/model/model.safetensors") for p in places]
    for one, other in itertools.pairwise(weights):
        far = max(float((one[n] - other[n]).abs().max()) for n in one)
        assert 0 < far < 0.1, "each run goes a few steps from the one before"
    for row in report["iterations"][1:]:
        played = row["selection"]
        assert played["kept"] == 6 - played["dropped"]
        assert played["kept_return_mean"] > played["played_return_mean"]
        assert row["ci"][0] <= row["regret"] <= row["ci"][1]
    tasks = ["--horizon", "3", "--support", "1", "--tasks", "2", "--trajectories", "1"]
    result = run(app, ["eval", "--policy", str(places[-1] / "run"), *tasks])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "place",
    ["play", *(pytest.param(p, marks=pytest.mark.slow) for p in ("train", "test"))],
)
@pytest.mark.slow
def test_an_interrupted_run_ends_as_one_that_is_not(
    whole, tmp_path, monkeypatch, place
):
    module, name = {
        "play": ("sdm.evaluation.stepwise", "_keep"),
        "train": ("sdm.llm.self_training.iterations", "finetune"),
        "test": ("sdm.llm.self_training.iterations", "iteration_row"),
    }[place]
    done, plain = [], getattr(__import__(module, fromlist=["_"]), name)
    monkeypatch.setattr("sdm.llm.self_training.play.ROWS_TOGETHER", 8)  # 2 scenarios
    # The start's two tests are kept before two groups of the first iteration's play.
    stop = {"play": 4, "train": 2, "test": 2}[place]

    def once(*args, **options):
        done.append(None)
        if len(done) == stop:
            raise KeyboardInterrupt
        return plain(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.{name}", once)
        with pytest.raises(KeyboardInterrupt):
            self_train(small(), tmp_path / "run")
    partial = tmp_path / "run.partial"
    assert (partial / "start" / "results.json").is_file()
    assert not (partial / "iteration-1" / "results.json").exists()
    again = []
    with monkeypatch.context() as patch:
        patch.setattr(iterations, "random_play", lambda _: again.append("start"))
        report = self_train(small(), tmp_path / "run", resume=True)
    # The groups of scenarios that are scored together change the scores by rounding
    # only, which samples other actions too rarely for a test to see.
    assert not again and not partial.exists()
    mine, theirs = (without_seconds(r)["iterations"] for r in (report, whole[0]))
    for row, other in zip(mine, theirs, strict=True):
        assert row["selection"] == pytest.approx(other["selection"])
        assert row["gap_percent"] == pytest.approx(other["gap_percent"], rel=1e-4)
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)


@pytest.mark.slow
def test_a_complete_run_gets_more_iterations(whole, tmp_path):
    out = tmp_path / "run"
    first = self_train(small(iterations=1), out)
    weights = out / "iteration-1" / "run" / "report.json"
    before = weights.stat().st_mtime_ns
    with pytest.raises(ValueError, match="already complete"):
        self_train(small(iterations=1), out, resume=True)
    report = self_train(small(), out, resume=True)
    assert weights.stat().st_mtime_ns == before  # nothing is made again
    assert not partial_folder(out).exists()
    assert report["iterations"][:2] == first["iterations"]
    last, other = (without_seconds(r["iterations"][2]) for r in (report, whole[0]))
    assert last["selection"] == pytest.approx(other["selection"])
    assert last["gap_percent"] == pytest.approx(other["gap_percent"], rel=1e-4)
    assert report["config"]["iterations"] == 2
    with pytest.raises(ValueError, match="exists already"):
        self_train(small(iterations=3, seed=6), out, resume=True)


@pytest.mark.slow
def test_another_seed_or_another_plan_is_another_run(whole, tmp_path):
    with pytest.raises(ValueError, match="exists already"):
        self_train(small(), whole[1])
    other = self_train(small(seed=6, iterations=1), tmp_path / "other")
    mine = whole[0]["iterations"][1]["selection"]
    assert other["iterations"][1]["selection"] != mine


@pytest.mark.slow
def test_a_run_goes_on_from_a_run(whole, tmp_path):
    """The base is a run folder: there is no random play, and the start is its test."""
    base = whole[1] / "iteration-2" / "run"
    config = small(base=str(base), start_scenarios=0, iterations=1, reference=str(base))
    report = self_train(config, tmp_path / "more")
    start, last = report["iterations"]
    end = whole[0]["iterations"][-1]
    assert start["gap_percent"] == pytest.approx(end["gap_percent"], rel=1e-4)
    assert not (tmp_path / "more" / "start" / "data").exists()
    header = yaml.safe_load((tmp_path / "more/iteration-1/run/config.yaml").read_text())
    assert header["finetune"]["start"] == str(base)
    assert report["reference"]["gap_percent"] == pytest.approx(start["gap_percent"])
    assert last["selection"]["invalid_mass"] < 1


@pytest.mark.slow
def test_a_run_can_learn_from_random_play_first(whole, tmp_path):
    base = whole[1] / "iteration-1" / "run"
    training = {"batch_size": 2, "loss": "actions"}
    config = small(base=str(base), iterations=1, start_scenarios=8, training=training)
    self_train(config, tmp_path / "more")
    start, later = (
        yaml.safe_load((tmp_path / "more" / name / "run/config.yaml").read_text())
        for name in ("start", "iteration-1")
    )
    assert start["finetune"]["start"] == str(base)
    assert [x["finetune"]["loss"] for x in (start, later)] == ["all", "actions"]
    assert read_manifest(tmp_path / "more/start/data")["tasks"] == 8


def test_the_closed_share_is_measured_from_the_start_to_the_reference():
    rows = [{"gap_percent": g, "seconds": {"test": 0.0}} for g in (50.0, 20.0, 5.0)]
    found = report_of(small(), rows, {"gap_percent": 10.0})["iterations"]
    assert [row["closed_percent"] for row in found] == [0, 75, 112.5]
    found = report_of(small(), rows, None)["iterations"]
    assert [row["closed_percent"] for row in found] == [None] * 3


# The command


SIZES = [
    *("--iterations", "1", "--scenarios", "6", "--episodes", "4", "--keep", "1"),
    *("--start-scenarios", "8", "--invalid-limit", "1", "--test-tasks", "3"),
    *("--test-trajectories", "2"),
]


@pytest.mark.slow
def test_a_bandit_is_self_trained_and_reports_its_exponent(tmp_path):
    out = tmp_path / "bandit"
    options = ["--family", "bandit", "--horizon", "8", "--select", "pseudo-regret"]
    ask = ["selftrain", *options, *SIZES, "--temperature", "2", "--out", str(out)]
    result = run(app, [*ask, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    for row in report["iterations"]:
        low, high = row["exponent_ci"]
        # Pseudo-regret of 8 rounds of at most 0.2, in units of reward.
        assert 0 <= row["regret"] <= 1.6 and low <= row["exponent"] <= high
        assert row["ci"][0] <= row["regret"] <= row["ci"][1]
        assert {"suffix_failure_frequency", "k_min_fraction"} <= row.keys()
    assert report["config"]["training"] == {} and report["config"]["support"] == 0
    result = run(app, ask)
    assert result.exit_code == 2 and "exists already" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep", "4"], "keep = 4: must be below episodes = 4"),
        (["--select", "chance"], "one of pseudo-regret, regret, reward for kind mdp"),
        (["--temperature", "0"], "temperature = 0: must be above 0"),
        (["--support", "9"], "must be at least support = 9"),
        (["--scenarios", "1"], "scenarios = 1: must be a whole number from 2"),
        (["--base", "smolm2"], "unknown base `smolm2`"),
        (["--epochs", "0"], "epochs = 0"),
        (["--temperature", "inf"], "temperature = inf: must be a finite number"),
        (["--reference", "nobody"], "unknown policy `nobody`"),
        (["--reference", "expert"], "policy `expert` does not fit"),
        (["--family", "garnet", "--actions", "30"], "at most 26 actions, found 30"),
        (["--start-p-min", "0.95"], "start: p_min = 0.95"),
        (["--start-max-energy", "4"], "start_family: must have the states, actions"),
        (["--start-scenarios", "0"], "start_scenarios = 0: must be a whole number fr"),
        (["--base=smollm2", "--start-scenarios=1"], "start_scenarios = 1: must be a"),
        (
            ["--base=smollm2", "--start-scenarios=0", "--start-p-min=0.5"],
            "start_family: has no effect with base = 'smollm2'",
        ),
        (
            ["--base=smollm2", "--start-scenarios=0", "--start-play=policies"],
            "start_play: has no effect with base = 'smollm2'",
        ),
    ],
)
def test_bad_options_end_with_one_line(options, message, tmp_path):
    out = ["--out", str(tmp_path / "run")]
    result = run(app, ["selftrain", "--horizon", "3", *SIZES, *options, *out])
    assert result.exit_code == 2 and message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_more_scenarios_than_training_tasks_are_refused(tmp_path):
    ask = ["selftrain", "--family", "darkroom", "--size", "3", *SIZES]
    result = run(app, [*ask, "--scenarios", "9", "--out", str(Path(tmp_path) / "run")])
    assert result.exit_code == 2 and "scenarios = 9: must be at most 7" in result.stderr
