"""Language models along logged histories, for off-policy evaluation.

This module imports PyTorch only to load a model.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from sdm.data.logs import NOTHING, Logs
from sdm.data.off_policy.align import places_in
from sdm.data.off_policy.logged_policy import PolicyOptions, register_logged_policy
from sdm.data.off_policy.shown import shown_episodes
from sdm.data.request import family_of, sees_rewards
from sdm.llm.base_names import ICL, check_base_name
from sdm.llm.episode import Episode, render_prompt
from sdm.llm.run_folder import default_schema, is_run, read_run
from sdm.llm.schema import Schema, make_schema
from sdm.tasks.family import Component, Spaces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sdm.llm.bases import CausalModel
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
        shown = shown_episodes(logs, self.demonstrations, "the language model")
        prompts = [
            self._prompt(logs, i, t, others)
            for i, others in enumerate(shown)
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

    def _prompt(self, logs: Logs, i: int, t: int, shown: tuple[int, ...]) -> str:
        """Return the text before decision t of episode i."""
        support = [self._episode(logs, j, int(logs.length[j]), 0) for j in shown]
        return render_prompt(self.policy.schema, support, self._episode(logs, i, t, 1))

    def _episode(self, logs: Logs, i: int, decisions: int, more: int) -> Episode:
        """Return the first decisions of an episode, and `more` observations."""
        seen = logs.observation[i, : decisions + more]
        seen = np.where(seen == NOTHING, NOTHING, self.observations[seen])
        done = self.actions[logs.action[i, :decisions]]
        paid = logs.reward[i, :decisions]
        return Episode(tuple(seen.tolist()), tuple(done.tolist()), tuple(paid.tolist()))


@register_logged_policy("the run folder of a language model")
def tuned(text: str, logs: Logs, options: PolicyOptions) -> LoggedLanguageModel | None:
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
    placed = places_in(spaces, header.kind, logs, f"policy `{text}`")
    from sdm.llm.runs import load_run

    run, config = load_run(folder), header.config
    schema = make_schema(
        config.schema, spaces, header.kind, rewards=header.observes_reward
    )
    shown = options.demonstrations
    shown = config.support if shown is None else shown
    made = _acting(run.model, run.tokenizer, schema, options)
    return LoggedLanguageModel(made, shown, *placed)


@register_logged_policy("`icl:BASE`")
def in_context(
    text: str, logs: Logs, options: PolicyOptions
) -> LoggedLanguageModel | None:
    """Load a base that acts in context only; return None for other names.

    It reads the names of the family's observations and actions, or of the logs' if
    there is no family.

    Raises:
        BaseModelError: if the base is unavailable.
        ValueError: if there is no such base, or the family does not fit the logs.

    """
    if not text.startswith(ICL):
        return None
    base = text.removeprefix(ICL)
    check_base_name(base)
    family, kind = options.family, options.kind
    if family is None:
        spaces, rewards, usual = spaces_of(logs), True, "paper"
        placed = np.arange(len(logs.observations)), np.arange(len(logs.actions))
    else:
        spaces, rewards = family.spaces, sees_rewards(family, kind, None)
        usual = default_schema(base)
        placed = places_in(spaces, kind, logs, f"policy `{text}`")
    schema = make_schema(options.schema or usual, spaces, kind, rewards=rewards)
    from sdm.llm.bases import load_base

    model, tokenizer = load_base(base)
    shown = 2 if options.demonstrations is None else options.demonstrations
    made = _acting(model.eval(), tokenizer, schema, options)
    return LoggedLanguageModel(made, shown, *placed)


def spaces_of(logs: Logs) -> Spaces:
    """Return the observations and actions of logs, whose rewards may be any numbers."""
    numbers = tuple(map(str, range(len(logs.observations))))
    named = () if logs.observations == numbers else logs.observations
    seen = Component("state", len(logs.observations), named)
    return Spaces((seen,), logs.actions, random_rewards=True)


def _acting(
    model: "CausalModel",
    tokenizer: "PreTrainedTokenizerBase",
    schema: Schema,
    options: PolicyOptions,
) -> "LanguageModelPolicy":
    """Return a policy that reads every text from its start."""
    from sdm.llm.policy import LanguageModelPolicy
    from sdm.llm.tokens import check_tokenizer
    from sdm.llm.whole_rows import WholeRows

    check_tokenizer(tokenizer, schema)
    rows, actions = partial(WholeRows, model), len(schema.contents.actions)
    return LanguageModelPolicy(
        rows, tokenizer, schema, [], actions, options.temperature
    )
