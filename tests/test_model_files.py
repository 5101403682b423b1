"""Users' own models in files, and how far to look into an endless one."""

import equinox as eqx
import numpy as np
import pytest
from random_models import random_apomdp, random_pomdp, tiger

from sdm.solvers_jax import (
    MDP,
    RobustMDP,
    load_model,
    load_npz,
    save_npz,
    save_pomdp,
    solve,
)
from sdm.tasks.model_files import load_with_names, long_horizon, truncation_error

POMDP_ONE = random_pomdp(0)
SET = random_apomdp(0, 0.5)
MODELS = [
    MDP(POMDP_ONE.transition, POMDP_ONE.reward, POMDP_ONE.initial, 0.9),
    RobustMDP(SET.transition, SET.reward, SET.initial, 0.3, 0.9),
    POMDP_ONE,
    random_pomdp(1, first=False),
    SET,
    random_pomdp(2, batch=(3,)),
]


@pytest.mark.parametrize("model", MODELS)
def test_arrays_are_read_back_exactly(tmp_path, model):
    save_npz(model, tmp_path / "model.npz")
    again = load_model(tmp_path / "model.npz")
    assert type(again) is type(model) and eqx.tree_equal(model, again)


def test_a_name_decides_how_a_file_is_read(tmp_path):
    actions = ["listen", "left", "right"]
    save_pomdp(tiger(), tmp_path / "tiger.POMDP", actions=actions)
    save_npz(tiger(), tmp_path / "tiger.NPZ")
    for name, known in (("tiger.POMDP", tuple(actions)), ("tiger.NPZ", ())):
        found = load_with_names(tmp_path / name)
        assert eqx.tree_equal(found.model, tiger()) and found.actions == known


def arrays(**changes):
    kept = {
        "kind": "MDP",
        "transition": np.eye(2)[:, None],
        "reward": np.zeros((2, 1)),
        "initial": np.array([1.0, 0.0]),
        "discount": 0.9,
    } | changes
    return {name: x for name, x in kept.items() if x is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": None}, "the entry `kind` is missing"),
        ({"kind": "SMDP"}, "the entry `kind` is SMDP: must be one of MDP"),
        ({"reward": None}, "the entry `reward` is missing"),
        ({"alpha": 0.5}, "the entry `alpha` is unknown for MDP models"),
        ({"initial": np.array([0.5, 0.6])}, "initial: probabilities sum to 1.1"),
        ({"initial": np.array([np.nan, 1.0])}, "must be finite"),
    ],
)
def test_what_is_wrong_with_arrays_is_said(tmp_path, changes, message):
    path = tmp_path / "model.npz"
    np.savez(path, **arrays(**changes))
    with pytest.raises(ValueError) as error:
        load_npz(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "model.npz").write_text("not one")
    with pytest.raises(ValueError, match="file of arrays"):
        load_npz(tmp_path / "model.npz")
    with pytest.raises(ValueError, match=r"nowhere.npz` does not exist"):
        load_model(tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match="is a folder"):
        load_model(tmp_path)


@pytest.mark.slow
def test_an_endless_model_is_followed_until_the_rest_hardly_counts():
    model = tiger(discount=0.9)
    horizon = long_horizon(model)
    assert 0.9**horizon <= 0.001 < 0.9 ** (horizon - 1)
    assert truncation_error(model, horizon) == pytest.approx(0.9**horizon * 100 / 0.1)
    near, far = (float(solve(model, horizon=t).value) for t in (20, 30))
    assert abs(far - near) <= truncation_error(model, 20)
    with pytest.raises(ValueError, match="not discounted"):
        long_horizon(tiger(discount=1.0))
    assert truncation_error(tiger(discount=1.0), 10) == np.inf
    assert long_horizon(tiger(discount=0.0)) == 1
    with pytest.raises(ValueError, match=r"a discount of 0\.9999 needs 69075"):
        long_horizon(tiger(discount=0.9999))


def test_whole_numbers_of_other_programs_are_read_as_numbers(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(
        path,
        kind="MDP",
        transition=np.ones((1, 2, 1), np.float32),
        reward=np.array([[1, 3]]),
        initial=np.ones(1, np.int64),
        discount=1,
    )
    assert float(solve(load_model(path), horizon=4).value) == 12
    np.savez(path, kind="MDP", transition="a", reward="b", initial="c", discount=1)
    with pytest.raises(ValueError, match=r"mine.npz`: the entry `\w+` has dtype <U1"):
        load_model(path)


def test_an_array_alone_and_a_text_are_no_model(tmp_path):
    path = tmp_path / "mine.npz"
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match=r"mine\.npz` is not an \.npz file of arrays"):
        load_model(path)
    path.write_text("discount: 0.9")
    with pytest.raises(
        ValueError, match=r"is not an \.npz file of arrays, or is damaged$"
    ):
        load_model(path)
