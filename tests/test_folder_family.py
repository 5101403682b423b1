"""A folder of models as a family: files, split, names, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_apomdp, random_mdp, random_pomdp, tiger
from tolerances import ROUNDING
from typer.testing import CliRunner

from sdm.cli import app
from sdm.solvers_jax import RobustMDP, load_model, save_npz, save_pomdp
from sdm.tasks import FamilyError, load_family
from sdm.tasks.belief import true_model
from sdm.tasks.families.folder import FolderFamily
from sdm.tasks.models import states_observed

KEY = jax.random.key(0)
ACTIONS = ["listen", "left", "right"]
ENDS = ("POMDP", "mdp", "pomdp.gz", "MDP.GZ", "npz")


def write(folder, models):
    """Write models by file name."""
    folder.mkdir(exist_ok=True)
    for name, model in models.items():
        if name.endswith(".npz"):
            save_npz(model, folder / name)
        else:
            save_pomdp(model, folder / name, actions=ACTIONS[: model.reward.shape[1]])
    return str(folder)


@pytest.fixture
def files(tmp_path):
    """Five POMDPs in both formats, and files that are none."""
    models = {
        f"{seed}.{'POMDP' if seed % 2 else 'npz'}": random_pomdp(seed, first=False)
        for seed in range(5)
    }
    folder = write(tmp_path / "models", models)
    for name in ("README.md", ".hidden.npz"):
        (tmp_path / "models" / name).write_text("no model")
    (tmp_path / "models" / "inside.npz").mkdir()
    return folder


def equal(first, second):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


def test_every_text_format_and_mdps_without_observations_are_tasks(tmp_path):
    models = {f"{seed}.{end}": random_mdp(seed) for seed, end in enumerate(ENDS)}
    folder = write(tmp_path / "models", models)
    family = load_family(folder)
    assert family.kinds == {"mdp"} and family.folder.model_class == "MDP"
    assert [file.name for file in family.folder.files] == sorted(models)
    tasks = family.model({"file": jnp.arange(len(ENDS))}, "mdp")
    for i, name in enumerate(sorted(models)):
        np.testing.assert_array_equal(tasks.reward[i], models[name].reward)


def test_each_file_is_a_task_in_the_order_of_names(files):
    family = load_family(files)
    assert family.kinds == {"mdp", "pomdp"}
    tasks = {
        split: family.parameters(KEY, family.available(split), split=split)["file"]
        for split in ("train", "test")
    }
    assert sorted([*tasks["train"].tolist(), *tasks["test"].tolist()]) == [
        0,
        1,
        2,
        3,
        4,
    ]
    for params in ({"file": tasks["train"]}, {"file": tasks["test"]}):
        many = jax.jit(lambda p: family.model(p, "pomdp"))(params)
        observed = family.model(params, "mdp")
        for i, number in enumerate(params["file"].tolist()):
            name = f"{number}.{'POMDP' if number % 2 else 'npz'}"
            one = load_model(f"{files}/{name}")
            mine = jax.tree.map(lambda x: x[i] if np.ndim(x) else x, many)  # noqa: B023
            assert equal(mine, one)
            mine = jax.tree.map(lambda x: x[i] if np.ndim(x) else x, observed)  # noqa: B023
            assert equal(mine, states_observed(one))


def test_the_names_in_the_files_are_those_of_the_tasks(files):
    spaces = load_family(files).spaces
    assert spaces.actions == ("listen", "left")
    assert (spaces.states, spaces.symbols("pomdp")) == (3, 2)
    assert spaces.state[0].values == ()


def test_a_seed_splits_the_files(files):
    splits = [load_family(files, {"split": seed}) for seed in range(8)]
    held_out = [tuple(family.of("test").tolist()) for family in splits]
    assert len(set(held_out)) > 1 and {len(each) for each in held_out} == {1}
    half = load_family(files, {"training_share": 0.5})
    assert half.available("train") == 2 and half.available("test") == 3
    # Never without a task on either side.
    assert load_family(files, {"training_share": 0.01}).available("train") == 1
    assert load_family(files, {"training_share": 0.99}).available("test") == 1
    more = half.parameters(KEY, 3, split="train", first=0)["file"]
    assert more[1] == more[2]  # padded by the last


def test_test_files_that_were_trained_on_are_reported(files, tmp_path):
    first = load_family(files)
    other = next(
        family
        for seed in range(1, 9)
        if not set((family := load_family(files, {"split": seed})).of("test"))
        & set(first.of("test"))
    )
    assert first.covers(first) is None
    overlap = first.covers(other)
    assert overlap.startswith("1 of the 1 test files are training files")
    assert f"pass `--split {other.split}`" in overlap
    # The same files elsewhere, all but one of them to train on.
    for path in first.folder.files:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    copies = [load_family(str(tmp_path), {"split": seed}) for seed in range(8)]
    for copy in copies:
        same = set(copy.of("test")) == set(first.of("test"))
        assert (first.covers(copy) is None) == same
    save_npz(random_pomdp(7, first=False), tmp_path / "7.npz")
    assert "one of the two folders" in first.covers(
        load_family(str(tmp_path), {"training_share": 0.99, "split": 1})
    )


def test_weights_of_the_prior_are_those_of_training_files(files):
    family = load_family(files)
    params, weight = family.prior()
    assert sorted(params["file"].tolist()) == sorted(family.of("train").tolist())
    assert weight.tolist() == [0.25] * 4


def test_the_discount_can_be_replaced(tmp_path):
    models = {f"{g}.npz": random_mdp(3, discount=g) for g in (0.5, 0.9)}
    folder = write(tmp_path / "models", models)
    with pytest.raises(FamilyError, match=r"same discount, found 0.5 in `0.5.npz`"):
        family = load_family(folder)
        family.model(family.parameters(KEY, 1, split="train"), "mdp")
    family = load_family(folder, {"discount": 0.8})
    assert family.model(family.parameters(KEY, 1, split="train"), "mdp").discount == 0.8


def test_of_ambiguous_models_the_first_runs(tmp_path):
    models = {f"{seed}.npz": random_apomdp(seed, 0.3, models=3) for seed in range(2)}
    family = load_family(write(tmp_path / "models", models))
    params = {"file": jnp.arange(2, dtype=jnp.int32)}
    made = family.model(params, "apomdp")
    assert family.kinds == {"apomdp"} and family.models == 3 and made.alpha == 0.3
    assert equal(family.model(params, "pomdp"), true_model(made))
    assert family.divergence(params, made).shape == (2, 3)


def test_what_is_written_refuses_files_that_have_changed(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    family = load_family("models")
    written = json.loads(json.dumps(family.config()))
    monkeypatch.chdir("/")
    assert load_family("folder", written) == family
    save_npz(random_pomdp(9, first=False), tmp_path / "models" / "9.npz")
    with pytest.raises(FamilyError, match="its files have changed"):
        load_family("folder", written)


def misnamed(folder):
    for name, states in (("a.POMDP", ["x", "y"]), ("b.POMDP", ["x", "z"])):
        save_pomdp(tiger(0.9), folder / name, states=states)
        text = (folder / name).read_text()  # so that the files differ
        (folder / name).write_text(f"# {name}\n{text}")


def unreadable(folder):
    write(folder, {"a.npz": POMDP_ONE})
    (folder / "b.POMDP").write_text("discount: 0.9\nstates: x\n")


def not_numpy(folder):
    write(folder, {"a.npz": random_mdp(0)})
    (folder / "b.npz").write_text("no archive")


ROBUST = random_apomdp(0, 0.5)
POMDP_ONE = random_pomdp(1, first=False)
REFUSED = [
    ({}, "must hold 2 or more `.POMDP` or `.npz` files, found none"),
    ({"a.npz": random_mdp(0)}, "must hold 2 or more .* files, found a.npz"),
    (
        {"a.npz": random_mdp(0), "b.npz": random_mdp(0)},
        "found `a.npz` equal to `b.npz`",
    ),
    (
        {"a.npz": random_mdp(0), "b.npz": POMDP_ONE},
        "same class of model, found MDP in `a.npz` and POMDP in `b.npz`",
    ),
    (
        {"a.npz": random_mdp(0), "b.npz": random_mdp(0, states=4)},
        r"same shape of transition, found \(3, 2, 3\) in `a.npz` and \(4, 2, 4\)",
    ),
    (
        {"a.npz": random_pomdp(0), "b.npz": POMDP_ONE},
        r"same shape of initial_observation, found \(3, 2\) in `a.npz` and none in",
    ),
    (
        {"a.npz": random_mdp(0), "b.npz": random_mdp(1, 2)},
        r"`b.npz` must hold one model, found a batch of shape \(2,\)",
    ),
    (
        {
            f"{x}.npz": RobustMDP(
                ROBUST.transition, ROBUST.reward, ROBUST.initial, x, 0.9
            )
            for x in (0.1, 0.2)
        },
        "`0.1.npz`: models must be .*, found RobustMDP",
    ),
    (
        {"a.npz": random_apomdp(0, 0.1), "b.npz": random_apomdp(1, 0.2)},
        "same alpha, found 0.1 in `a.npz` and 0.2 in `b.npz`",
    ),
    (misnamed, r"same names of states, found \('x', 'y'\) in `a.POMDP` and \('x', 'z'"),
    (unreadable, "`b.POMDP` cannot be read: .*b.POMDP`"),
    (not_numpy, "`b.npz` cannot be read: .*is not an .npz file of arrays"),
]


@pytest.mark.parametrize(("models", "message"), REFUSED)
def test_a_folder_that_makes_no_tasks_is_refused(tmp_path, models, message):
    folder = tmp_path / "models"
    folder.mkdir()
    if callable(models):
        models(folder)
    else:
        write(folder, models)
    with pytest.raises(FamilyError, match=message) as caught:
        family = FolderFamily(str(folder))
        kind = next(iter(family.kinds))
        family.model(family.parameters(KEY, 1, split="train"), kind)
    assert str(caught.value).startswith(f"folder `{folder}`")
    assert caught.value.hint and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discount": 1.5}, "discount = 1.5"),
        ({"training_share": 1.0}, "training_share = 1"),
        ({"split": -1}, "split = -1"),
    ],
)
def test_an_option_out_of_range_is_refused(files, options, message):
    with pytest.raises(ValueError, match=message):
        load_family(files, options)


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path, what in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "no", "not exist"),
    ):
        with pytest.raises(FamilyError, match=what):
            load_family(f"folder:{path}")


def test_the_command_line_solves_a_folder(files):
    words = ["solve", "--family", files, "--setting", "mdp", "--horizon", "3", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    expected = []
    family = load_family(files)
    for number in family.of("train"):
        model = load_model(family.folder.files[number])
        value = np.zeros(3)
        for _ in range(3):
            later = np.asarray(model.transition) @ value
            value = (np.asarray(model.reward) + model.discount * later).max(-1)
        expected.append(np.asarray(model.initial) @ value)
    assert report["tasks"] == 4
    assert report["value_mean"] == pytest.approx(np.mean(expected), abs=ROUNDING)
