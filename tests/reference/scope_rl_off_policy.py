"""Write `cases/off_policy_scope_rl.json`: estimates of scope-rl 0.2.1 from small logs.

    pip install --no-deps scope-rl==0.2.1; pip install numpy scipy scikit-learn pandas
    python tests/reference/scope_rl_off_policy.py > cases/off_policy_scope_rl.json

Its estimators need NumPy only, but its package imports simulators and PyTorch, which
are replaced by empty modules. scope-rl computes no fitted values for tables: those of
`plain_off_policy` are its input for the doubly robust estimates.
"""

import importlib
import importlib.abc
import importlib.machinery
import json
import sys
import types

import numpy as np
import plain_off_policy as plain

EPISODES, HORIZON, STATES, ACTIONS, DISCOUNT = 24, 4, 3, 2, 0.9
EMPTY = {"d3rlpy", "gym", "gymnasium", "torch", "seaborn", "matplotlib", "tqdm"}
EMPTY |= {"pytorch_revgrad"}


class Empty(types.ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name):
        """Return a class."""
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__module__": self.__name__})


class Emptied(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an empty module for every package that the estimators do not use."""

    def find_spec(self, name, path=None, target=None):
        """Return the specification of an empty package."""
        if name.split(".")[0] in EMPTY:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        """Return a module whose names are all there, as empty classes."""
        return Empty(spec.name)

    def exec_module(self, module):
        """Do nothing."""


def main() -> None:
    """Print the logs, the policy and the estimates as JSON."""
    for name in ("scipy.stats", "sklearn.utils"):  # with the real torch, if any
        importlib.import_module(name)
    sys.meta_path.insert(0, Emptied())
    from scope_rl.ope.discrete import basic_estimators as peer

    random = np.random.default_rng(5)
    behavior = random.dirichlet(np.full(ACTIONS, 2.0), STATES).round(3)
    behavior[:, -1] = 1 - behavior[:, :-1].sum(-1)
    policy = random.dirichlet(np.ones(ACTIONS), STATES).round(3)
    policy[:, -1] = 1 - policy[:, :-1].sum(-1)
    seen = random.integers(0, STATES, (EPISODES, HORIZON))
    action = (random.random(seen.shape) >= behavior[seen, 0]).astype(int)
    reward = random.normal(size=seen.shape).round(3)
    chance = behavior[seen, action]
    rows = np.stack([seen, action, reward, chance], -1).tolist()
    episodes = [[(int(s), int(a), r, b) for s, a, r, b in row] for row in rows]
    q = plain.crossed(episodes, lambda s, t: policy[s], DISCOUNT, HORIZON, ACTIONS)
    given = {
        "step_per_trajectory": HORIZON,
        "action": action.ravel(),
        "reward": reward.ravel(),
        "pscore": chance.ravel(),
        "evaluation_policy_action_dist": policy[seen.ravel()],
        "gamma": DISCOUNT,
    }
    fitted = {"state_action_value_prediction": np.array(q).reshape(-1, ACTIONS)}
    found = {
        "is": peer.TrajectoryWiseImportanceSampling().estimate_policy_value(**given),
        "pdis": peer.PerDecisionImportanceSampling().estimate_policy_value(**given),
        "wpdis": peer.SelfNormalizedPDIS().estimate_policy_value(**given),
        "dr": peer.DoublyRobust().estimate_policy_value(**given, **fitted),
        "wdr": peer.SelfNormalizedDR().estimate_policy_value(**given, **fitted),
    }
    case = {
        "made_with": "scope-rl 0.2.1, tests/reference/scope_rl_off_policy.py",
        "discount": DISCOUNT,
        "policy": policy.tolist(),
        "observation": seen.tolist(),
        "action": action.tolist(),
        "reward": reward.tolist(),
        "probability": chance.tolist(),
        "estimates": {name: float(x) for name, x in found.items()},
    }
    print(json.dumps(case))


if __name__ == "__main__":
    main()
