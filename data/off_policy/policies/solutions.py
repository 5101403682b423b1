"""Policies of solutions that `sdm solve --model FILE --out FOLDER` wrote.

The policy of an MDP, robust or not, is a table. Others act on beliefs, which the
model's filter updates with the logged actions and observations; the model's file must
still be where it was.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from sdm.data.logs import Logs
from sdm.data.off_policy.align import aligned, places
from sdm.data.off_policy.follow import chances_along
from sdm.data.off_policy.logged_policy import (
    LoggedPolicy,
    PolicyOptions,
    TablePolicy,
    register_logged_policy,
)
from sdm.solvers_jax.solution_files import MANIFEST, load_solution, read_manifest
from sdm.tasks.model_files import load_with_names
from sdm.tasks.momdp_flat import SeesVisible
from sdm.tasks.policy import Policy
from sdm.tasks.simulation import in_its_model
from sdm.tasks.worlds import sizes_of


@register_logged_policy("a folder that `sdm solve --model FILE --out` wrote")
def solution(text: str, logs: Logs, options: PolicyOptions) -> LoggedPolicy | None:
    """Read the policy of a solution; return None for other names.

    Raises:
        StorageError: if the folder is damaged.
        ValueError: if the solution is of a batch of tasks, does not fit the logs, or
            its model has changed.

    """
    folder = Path(text)
    if not (folder / MANIFEST).is_file():
        return None
    about, found = read_manifest(folder), load_solution(folder)
    if np.ndim(found.value):
        raise ValueError(
            f"policy `{text}`: must be the solution of one task, found "
            f"{np.size(found.value)}"
        )
    actions = about.get("actions") or None
    choice = getattr(found, "policy", None)
    if choice is not None:
        table = np.asarray(jax.nn.one_hot(choice, found.q.shape[-1]), np.float64)
        states = about.get("states") or None
        return TablePolicy(
            aligned(table, logs, observations=states, actions=actions, where=text)
        )
    named = load_with_names(_model_file(about, text))
    policy = in_its_model(named.model, found).policy
    shown = named.observations
    if isinstance(policy, SeesVisible):
        symbols = sizes_of(named.model).symbols
        shown = shown or (named.states if policy.symbols == 1 else ())
        policy = policy.policy
    else:
        symbols = named.model.observation.shape[-1]
    return FilteredPolicy(
        policy,
        _codes(shown or None, logs.observations, symbols, text),
        _codes(actions, logs.actions, named.model.reward.shape[-1], text),
    )


def _model_file(about: dict[str, Any], text: str) -> Path:
    """Return the file of a solution's model.

    Raises:
        ValueError: if it is missing or has changed.

    """
    model = about.get("model") or {}
    path = Path(model.get("file", ""))
    if not path.is_file():
        raise ValueError(
            f"policy `{text}`: needs the file of its model to update its belief, found "
            f"no `{path}`"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != model.get("sha256"):
        raise ValueError(
            f"policy `{text}`: its model `{path}` has changed since it was solved"
        )
    return path


def _codes(
    own: Sequence[str] | None, logged: Sequence[str], size: int, text: str
) -> Int[np.ndarray, " N"]:
    """Return the model's index of each logged name; raise if the model lacks it."""
    found = places(own, logged, size)
    if (found < 0).any():
        name = logged[int(np.flatnonzero(found < 0)[0])]
        raise ValueError(f"policy `{text}`: its model has no `{name}`, as the logs do")
    return found


@dataclass(frozen=True)
class FilteredPolicy:
    """A deterministic policy with memory, followed along logged histories.

    Attributes:
        policy: the policy, in a batch of one task.
        observations: its index of each observation of the logs.
        actions: its index of each action of the logs.

    """

    policy: Policy
    observations: Int[np.ndarray, " S"]
    actions: Int[np.ndarray, " A"]

    @property
    def table(self) -> None:
        """Return None: the policy has memory."""
        return None

    def probabilities_along(self, logs: Logs) -> Float[np.ndarray, "N T A"]:
        """Return 1 for the policy's action after each history, else 0.

        Raises:
            ValueError: if the policy takes an action that the logs do not have, or
                cannot follow logged actions.

        """
        everyone = np.arange(logs.episodes)[None]
        return chances_along(
            self.policy, logs, everyone, self.observations, self.actions
        )[0]
