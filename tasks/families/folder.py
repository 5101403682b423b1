"""A folder of models: each `.POMDP` or `.npz` file is a task.

The files hold models of one class (MDP, POMDP or APOMDP) with equal numbers of states,
actions, observations and models, and with equal names if they have names. Tasks are
numbered in the order of the file names. Other files, hidden files and subfolders are
ignored. A seed splits the files into training and test tasks.

A folder of POMDPs also supports the kind mdp, with observed states. The first model of
an APOMDP generates episodes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from sdm.tasks.belief import true_model
from sdm.tasks.family import (
    Component,
    Defaults,
    Family,
    Kind,
    Params,
    Spaces,
    Split,
    TaskFamily,
    WeightedParams,
)
from sdm.tasks.model_folder import ModelFolder
from sdm.tasks.models import APOMDP, MDP, POMDP, check_count, states_observed
from sdm.tasks.registry import FamilyError, register

POSED: dict[str, frozenset[Kind]] = {
    "MDP": frozenset({"mdp"}),
    "POMDP": frozenset({"mdp", "pomdp"}),
    "APOMDP": frozenset({"apomdp"}),
}


@register
@dataclass(frozen=True)
class FolderFamily(Family):
    """The models in a folder, one task per file.

    Attributes:
        path: folder of `.POMDP` or `.npz` files.
        discount: discount factor per stage, in [0, 1]; from the files if not given.
        training_share: share of the files for training, in (0, 1).
        split: random seed of the split into training and test files.
        digest: expected SHA-256 of the files; not checked if empty.

    """

    path: str
    discount: float | None = None
    training_share: float = 0.8
    split: int = 0
    digest: str = ""

    name: ClassVar[str] = "folder"
    defaults: ClassVar[Defaults] = Defaults(tasks=None, test_tasks=None)

    def __post_init__(self) -> None:
        """Find the files.

        Raises:
            FamilyError: if the files define no tasks or do not match `digest`.
            ValueError: if an option is invalid.

        """
        check_count("split", self.split, 0, 2**32 - 1)
        if self.discount is not None and not 0 <= self.discount <= 1:
            raise ValueError(f"discount = {self.discount:g}: must lie between 0 and 1")
        if not 0 < self.training_share < 1:
            raise ValueError(
                f"training_share = {self.training_share:g}: must lie between 0 and 1"
            )
        now = self.folder.digest
        if self.digest not in ("", now):
            raise FamilyError(
                f"folder `{self.path}`: its files have changed: expected the digest "
                f"{self.digest[:12]}…, found {now[:12]}…",
                "restore the files, or generate the data and train again",
            )
        object.__setattr__(self, "path", str(self.folder.path))
        object.__setattr__(self, "digest", now)

    @cached_property
    def folder(self) -> ModelFolder:
        """The files and their models."""
        return ModelFolder(self.path)

    @cached_property
    def kinds(self) -> frozenset[Kind]:  # type: ignore[override]
        """Supported kinds of model."""
        return POSED[self.folder.model_class]

    @cached_property
    def models(self) -> int:
        """Size K of the ambiguity sets; 1 if the models are not ambiguous."""
        transition = self.folder.arrays["transition"]
        return transition.shape[1] if self.folder.model_class == "APOMDP" else 1

    @cached_property
    def spaces(self) -> Spaces:
        """States, actions and symbols, with the names in the files or numbered."""
        arrays, names = self.folder.arrays, self.folder.names
        _, states, actions = arrays["reward"].shape
        seen = arrays.get("observation")
        shown = () if seen is None else (seen.shape[-1],)
        return Spaces(
            state=(Component("state", states, names("states")),),
            actions=names("actions") or tuple(f"action {a}" for a in range(actions)),
            symbol=tuple(Component("symbol", size, names("symbols")) for size in shown),
        )

    def parameters(
        self,
        key: Key[Array, ""],
        n: int,
        *,
        split: Split,
        first: int | Int[Array, ""] = 0,
    ) -> Params:
        """Return files of a split; the last one repeats beyond the end of the list."""
        index = first + jnp.arange(n, dtype=jnp.int32)
        return {"file": jnp.take(jnp.asarray(self.of(split)), index, mode="clip")}

    def model(self, params: Params, kind: Kind) -> MDP | POMDP | APOMDP:
        """Return the models of the files `params["file"]`."""
        index, precision = params["file"], jnp.result_type(float)
        folder, discount = self.folder, self.discount
        if discount is None:
            discount = folder.number("discount", "pass `--discount` for all of them")
        fields: dict[str, Any] = {
            name: jnp.asarray(x, precision)[index] for name, x in folder.arrays.items()
        }
        if folder.model_class == "MDP":
            return MDP(**fields, discount=discount)
        if folder.model_class == "POMDP":
            hidden = POMDP(**fields, discount=discount)
            return states_observed(hidden) if kind == "mdp" else hidden
        alpha = folder.number("alpha")
        ambiguous = APOMDP(**fields, alpha=alpha, discount=discount)
        return ambiguous if kind == "apomdp" else true_model(ambiguous)

    def prior(self) -> WeightedParams:
        """Return the training files with equal weights."""
        files = jnp.asarray(self.of("train"))
        weight = jnp.full(len(files), 1 / len(files), jnp.result_type(float))
        return WeightedParams({"file": files}, weight)

    def available(self, split: Split) -> int:
        """Return the number of files in a split."""
        return len(self.of(split))

    def task_names(self, split: Split) -> tuple[str, ...]:
        """Return the names of the files of a split, without suffixes."""
        return tuple(self.folder.files[i].stem for i in self.of(split))

    def covers(self, trained_on: TaskFamily) -> str | None:
        """Describe the overlap of this folder's test files with training files."""
        if not isinstance(trained_on, FolderFamily):
            return None
        known = list(trained_on.folder.hashes.values())
        learned = {known[i] for i in trained_on.of("train")}
        mine = list(self.folder.hashes.items())
        held_out = [mine[i] for i in self.of("test")]
        common = [name for name, value in held_out if value in learned]
        if not common:
            return None
        advice = "remove them from one of the two folders"
        if trained_on.digest == self.digest:
            there_too = f"--split {trained_on.split}"
            if trained_on.training_share != self.training_share:
                there_too += f" --training-share {trained_on.training_share:g}"
            advice = f"pass `{there_too}`, as in training"
        return (
            f"{len(common)} of the {len(held_out)} test files are training files "
            f"({', '.join(common[:3])}{', …' * (len(common) > 3)}): {advice}"
        )

    def of(self, split: Split) -> Int[np.ndarray, " F"]:
        """Return the indices of the files of a split, in the order of their tasks."""
        total = len(self.folder.files)
        order = np.random.default_rng(self.split).permutation(total).astype(np.int32)
        count = min(max(1, round(self.training_share * total)), total - 1)
        return order[:count] if split == "train" else order[count:]
