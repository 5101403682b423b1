"""Check that a base can act, before it is trained.

Every model that can score whole texts can act; a cache only makes it faster.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from bitsandbytes.nn.modules import Linear4bit
from transformers import PreTrainedTokenizerBase

from sdm.llm.bases import CausalModel
from sdm.llm.context import ContextError
from sdm.llm.episode import Episode
from sdm.llm.memory import OutOfMemoryError
from sdm.llm.policy import EpisodeTexts, LanguageModelPolicy
from sdm.llm.sample_episodes import sample_episode
from sdm.llm.schema import Schema
from sdm.llm.whole_rows import WholeRows


class CannotActError(ValueError):
    """A base that can be trained, but whose actions cannot be scored."""

    hint = (
        "choose a model that predicts the next token: Llama, Mistral, GPT-2, SmolLM2, …"
    )

    def __init__(self, name: str, model: CausalModel, reason: str) -> None:
        """Name the base, the type of model and the reason."""
        kind = model.config.model_type
        super().__init__(
            f"base `{name}`: a {kind} model can be trained, but its actions cannot be "
            f"scored: {reason.removeprefix('base: ')}"
        )


def check_acting(
    name: str,
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    schema: Schema,
) -> None:
    """Let a model choose two actions in each of two episodes, as an evaluation does.

    Args:
        name: name of the base.
        model: the model, before training.
        tokenizer: its tokenizer.
        schema: text schema of the episodes.

    Raises:
        CannotActError: if the model cannot act.
        ContextError: if its context is too short for two stages.
        OutOfMemoryError: if they do not fit the memory.

    """
    training = model.training
    model.eval()
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            # Else bitsandbytes may repack its weights, which then pass no gradient.
            layer.train()
    try:
        finite = _act(model, tokenizer, schema)
    except (ContextError, OutOfMemoryError):
        raise
    except Exception as error:  # models fail in many ways
        first = (str(error).strip() or repr(error)).splitlines()[0]
        raise CannotActError(name, model, first) from error
    finally:
        model.train(training)
    if not finite:
        raise CannotActError(name, model, "their probabilities are not finite")


def _act(
    model: CausalModel, tokenizer: PreTrainedTokenizerBase, schema: Schema
) -> bool:
    """Choose actions; return whether their probabilities are finite."""
    whole = sample_episode(schema)
    assert whole.rewards is not None
    shown = Episode(whole.observations[:2], whole.actions[:2], whole.rewards[:2])
    actions = len(schema.contents.actions)
    begin = partial(WholeRows, model)
    policy = LanguageModelPolicy(begin, tokenizer, schema, [[shown]], actions)
    memory = EpisodeTexts()
    rewards = jnp.full((1, 2), whole.rewards[0])
    keys = jax.random.split(jax.random.key(0), (1, 2))
    # The second observation differs between the episodes, which then have own rows.
    first, second = whole.observations[:2]
    for t, seen in enumerate(([first, first], [first, second])):
        policy.act(memory, t, jnp.asarray([seen]), rewards, keys)
    return bool(np.isfinite(policy.invalid).all())
