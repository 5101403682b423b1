"""Language models along logged histories, for off-policy evaluation.

This module imports PyTorch only to load a model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from sdm.data.logs import NOTHING, Logs
from sdm.data.off_policy.align import places
from sdm.data.off_policy.logged_policy import PolicyOptions, register_logged_policy
from sdm.data.request import family_of
from sdm.llm.episode import Episode, render_prompt
from sdm.llm.run_folder import is_run, read_run
from sdm.llm.schema import make_schema

if TYPE_CHECKING:
    from sdm.llm.policy import LanguageModelPolicy

TOGETHER = 256  # histories that are scored together


@dataclass(frozen=True)
class LoggedLanguageModel:
    """A fine-tuned language model, shown logged episodes of the same task.

    Episode i is shown the first episodes of its task, without itself.

    Attributes:
        policy: the language model.
        demonstrations: episodes that it is shown.
        observations: its index of each observation of the logs.
        actions: its index of each action of the logs.

    """

    policy: "LanguageModelPolicy"
    demonstrations: int
    observations: Int[np.ndarray, " S"]
    actions: Int[np.ndarray, " A"]

    @property
    def table(self) -> None:
        """Return None: the policy has memory."""
        return None

    def probabilities_along(self, logs: Logs) -> Float[np.ndarray, "N T A"]:
        """Return the probability of each action after each logged history.

        Actions that the logs do not have keep none: the others are scaled to sum to 1.

        Raises:
            ValueError: if a task has too few episodes to show.
            ContextError: if a text is longer than the model's context.

        """
        prompts = [
            self._prompt(logs, i, t, shown)
            for i, shown in enumerate(self._shown(logs))
            for t in range(int(logs.length[i]))
        ]
        # Equal histories are scored once.
        place = {text: at for at, text in enumerate(dict.fromkeys(prompts))}
        texts, scores = list(place), []
        for first in range(0, len(texts), TOGETHER):
            some = texts[first : first + TOGETHER]
            targets, suffixes = self.policy.candidates(some)
            rows = self.policy.begin([])
            scores.append(rows.score(targets, suffixes, range(len(some))))
        chances = self._chances(np.concatenate(scores)[:, self.actions])
        found = np.zeros((logs.episodes, logs.horizon, len(self.actions)))
        acted = logs.action != NOTHING
        found[acted] = chances[[place[text] for text in prompts]]
        return found

    def _chances(self, scores: Float[np.ndarray, "n A"]) -> Float[np.ndarray, "n A"]:
        """Return the probabilities of actions from their log-probabilities."""
        if not self.policy.temperature:
            return np.eye(scores.shape[1])[scores.argmax(-1)]
        scaled = scores.astype(np.float64) / self.policy.temperature
        weight = np.exp(scaled - scaled.max(-1, keepdims=True))
        found: np.ndarray = weight / weight.sum(-1, keepdims=True)
        return found

    def _shown(self, logs: Logs) -> list[list[int]]:
        """Return the episodes that each episode is shown."""
        shown = []
        for i, task in enumerate(logs.task):
            first = np.flatnonzero(logs.task == task)[: self.demonstrations + 1]
            chosen = [int(j) for j in first if j != i][: self.demonstrations]
            if len(chosen) < self.demonstrations:
                raise ValueError(
                    f"logs: task `{logs.tasks[task]}` must have more than "
                    f"{self.demonstrations} episodes, to show {self.demonstrations} "
                    f"others to the language model, found {len(chosen) + 1}"
                )
            shown.append(chosen)
        return shown

    def _prompt(self, logs: Logs, i: int, t: int, shown: list[int]) -> str:
        """Return the text before decision t of episode i."""
        support = [self._episode(logs, j, int(logs.length[j]), 0) for j in shown]
        return render_prompt(self.policy.schema, support, self._episode(logs, i, t, 1))

    def _episode(self, logs: Logs, i: int, decisions: int, more: int) -> Episode:
        """Return the first decisions of an episode, and `more` observations."""
        seen = self.observations[logs.observation[i, : decisions + more]]
        done = self.actions[logs.action[i, :decisions]]
        paid = logs.reward[i, :decisions]
        return Episode(tuple(seen.tolist()), tuple(done.tolist()), tuple(paid.tolist()))


@register_logged_policy("the run folder of a language model")
def language_model(
    text: str, logs: Logs, options: PolicyOptions
) -> LoggedLanguageModel | None:
    """Load a run of `sdm finetune`; return None for other names.

    Raises:
        StorageError: if the folder is damaged.
        ValueError: if its observations or actions are not those of the logs.

    """
    folder = Path(text)
    if not is_run(folder):
        return None
    header = read_run(folder)
    spaces = family_of({**vars(header)}).spaces
    symbols, components = spaces.symbols(header.kind), spaces.seen(header.kind)
    known = components[0].values if len(components) == 1 else ()
    named = set(logs.observations) <= set(known)
    seen = places(known if named else None, logs.observations, symbols)
    named = set(logs.actions) <= set(spaces.actions)
    size = len(spaces.actions)
    taken = places(spaces.actions if named else None, logs.actions, size)
    for what, codes, names in (
        ("observation", seen, logs.observations),
        ("action", taken, logs.actions),
    ):
        if (codes < 0).any():
            name = names[int(np.flatnonzero(codes < 0)[0])]
            raise ValueError(
                f"policy `{text}`: has no {what} `{name}`: family `{header.family}` "
                f"numbers {symbols} observations and {size} actions from 0"
            )
    from functools import partial

    from sdm.llm.policy import LanguageModelPolicy
    from sdm.llm.runs import load_run
    from sdm.llm.whole_rows import WholeRows

    run = load_run(folder)
    schema = make_schema(
        header.config.schema, spaces, header.kind, rewards=header.observes_reward
    )
    shown = options.demonstrations
    return LoggedLanguageModel(
        LanguageModelPolicy(
            partial(WholeRows, run.model),
            run.tokenizer,
            schema,
            [],
            size,
            options.temperature,
        ),
        header.config.support if shown is None else shown,
        seen,
        taken,
    )
