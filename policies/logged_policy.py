"""Policies of `sdm eval` along logged histories, for off-policy evaluation."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from sdm.data.benchmark import EvaluationConfig, Shown
from sdm.data.logs import Logs
from sdm.data.off_policy.align import entries_of, places_in
from sdm.data.off_policy.follow import chances_along
from sdm.data.off_policy.logged_policy import (
    LoggedPolicy,
    PolicyOptions,
    TablePolicy,
    register_logged_policy,
)
from sdm.data.off_policy.policies.named import RANDOM
from sdm.data.off_policy.shown import shown_episodes
from sdm.data.request import family_of
from sdm.policies.learned import Learned, learned
from sdm.policies.learner import learners
from sdm.policies.policy_runs import load_policy_run
from sdm.policies.prepared import Prepared
from sdm.policies.registry import prepare, rules
from sdm.tasks.family import HIDDEN
from sdm.tasks.policy import Policy, TabularPolicy
from sdm.tasks.rollout import Trajectory

TOGETHER = 64  # tasks, or choices of shown episodes, that are prepared together


@dataclass(frozen=True)
class Demonstrated:
    """A policy that is shown logged episodes of the same task.

    Attributes:
        text: name of the policy, for errors.
        make: prepares it for what is shown.
        config: configuration of the tasks.
        observations: its index of each observation of the logs.
        actions: its index of each action of the logs.

    """

    text: str
    make: Callable[[Shown], Prepared]
    config: EvaluationConfig
    observations: Int[np.ndarray, " S"]
    actions: Int[np.ndarray, " A"]

    @property
    def table(self) -> None:
        """Return None: the policy depends on what it is shown."""
        return None

    def probabilities_along(self, logs: Logs) -> Float[np.ndarray, "N T A"]:
        """Return the probability of each action at each logged decision.

        Raises:
            ValueError: if a task has too few episodes to show, or the policy cannot
                follow logged actions.

        """
        length, number = self.config.horizon, self.config.support
        each = shown_episodes(logs, number, f"`{self.text}`", decisions=length)
        choices = list(dict.fromkeys(each))
        found = np.zeros((logs.episodes, logs.horizon, len(self.actions)))
        most = min(TOGETHER, self.config.family.available("test") or TOGETHER)
        for first in range(0, len(choices), most):
            some = choices[first : first + most]
            rows = [[i for i, one in enumerate(each) if one == x] for x in some]
            padded = np.zeros((len(some), max(map(len, rows))), int)
            for place, row in zip(padded, rows, strict=True):
                place[: len(row)], place[len(row) :] = row, row[0]
            found[padded] = chances_along(
                self.policy(logs, some), logs, padded, self.observations, self.actions
            )
        return found

    def policy(self, logs: Logs, choices: list[tuple[int, ...]]) -> Policy:
        """Return the policy for each choice of shown episodes."""
        where = np.array(choices, int).reshape(len(choices), self.config.support)
        support = Trajectory(
            jnp.asarray(self.observations[logs.observation[where, :-1]], jnp.int32),
            jnp.asarray(self.actions[logs.action[where]], jnp.int32),
            jnp.asarray(logs.reward[where]),
        )
        config = dataclasses.replace(self.config, tasks=len(choices))
        return self.make(Shown(config, support)).policy


@register_logged_policy("the name of another policy of `sdm eval`, with `--family`")
def untrained(text: str, logs: Logs, options: PolicyOptions) -> LoggedPolicy | None:
    """Prepare a policy without training; return None for other names.

    Raises:
        ValueError: if there is no family, or the policy does not fit it or the logs.

    """
    if text not in rules() or text == RANDOM:  # which needs no family
        return None
    if options.family is None:
        raise ValueError(
            f"policy `{text}`: needs the tasks that are possible, by `--family`, such "
            "as a folder that `sdm estimate` wrote"
        )
    config = EvaluationConfig(
        options.family,
        logs.horizon,
        tasks=1,
        support=options.demonstrations or 0,
        kind=options.kind,
        demonstrations="random",
    )
    return _following(text, lambda shown: prepare(text, shown), config, logs)


@register_logged_policy("a learned policy, as `dpt:RUN`")
def trained(text: str, logs: Logs, options: PolicyOptions) -> LoggedPolicy | None:
    """Load a policy that `sdm train` learned; return None for other names.

    Raises:
        StorageError: if the folder has no such policy.
        ValueError: if it does not fit the logs.

    """
    if not isinstance(named := learned(text), Learned):
        return None
    run = load_policy_run(named.folder, named.like)
    tasks = run.about.tasks
    able = learners()[named.like].demonstrations(run, tasks["kind"] in HIDDEN)
    support = options.demonstrations
    if support is None:
        support = able[-1] if able else 0
    config = EvaluationConfig(
        family_of(tasks),
        tasks["horizon"],
        tasks=1,
        support=support,
        kind=tasks["kind"],
        demonstrations="random",
        observes_reward=tasks["observes_reward"],
    )
    if logs.horizon > config.horizon:
        raise ValueError(
            f"policy `{text}`: acts for {config.horizon} decisions, but the logs have "
            f"episodes of {logs.horizon}"
        )
    if able is not None and support not in able:
        raise ValueError(
            f"policy `{text}`: reads {able[0]} to {able[-1]} demonstrations, found "
            f"{support}"
        )
    learner = learners()[named.like]
    return _following(text, lambda shown: learner.prepare(run, shown), config, logs)


def _following(
    text: str,
    make: Callable[[Shown], Prepared],
    config: EvaluationConfig,
    logs: Logs,
) -> LoggedPolicy:
    """Return a policy along the logs: a table if it is one and is shown nothing."""
    spaces, where = config.family.spaces, f"policy `{text}`"
    seen, taken = places_in(spaces, config.kind, logs, where)
    found = Demonstrated(text, make, config, seen, taken)
    if config.support:
        return found
    policy = found.policy(logs, [()])
    if not isinstance(policy, TabularPolicy):
        return found
    table = np.asarray(policy.probabilities[0], np.float64)
    return TablePolicy(
        entries_of(table, logs, seen, taken, actions=spaces.actions, where=text)
    )
