"""Read PomdpX, the XML format of APPL and SARSOP, with factored variables.

The states of the model are all combinations of values of the state variables, the last
variable varying fastest; likewise for actions and observations. If all state variables
are fully observed, the model is an MDP. If some are, their values are part of every
observation, and of an observation before the first action. Tables (`type="TBL"`) are
read; decision diagrams are not.

Source of the format: PomdpX File Format 1.0, Approximate POMDP Planning software (NUS).
"""

import os
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sdm.storage.memory import MemoryLimitError
from sdm.tasks.cassandra_words import NUMBER, PomdpFileError
from sdm.tasks.model_formats import NamedModel
from sdm.tasks.models import MDP, POMDP, check_model
from sdm.tasks.pomdpx_factors import Factor, Join, in_order, read_factor
from sdm.tasks.pomdpx_variables import read_variables
from sdm.tasks.pomdpx_xml import Element, read_xml
from sdm.tasks.triplets import Triplets, check_size, transition_of

SECTIONS = (
    *("Description", "Discount", "Variable", "InitialStateBelief"),
    *("StateTransitionFunction", "ObsFunction", "RewardFunction"),
)


def read_pomdpx(path: str | os.PathLike[str]) -> NamedModel:
    """Read a PomdpX file, which may be compressed by gzip, with its names.

    Returns:
        An `MDP` if all state variables are fully observed, else a `POMDP`. The names
        of states join the values of the variables with dots.

    Raises:
        PomdpFileError: a `ValueError` with file and line, if the file is not in the
            format, has an unsupported part, or the model does not fit in memory.
        OSError: if the file cannot be read.

    """
    root = read_xml(Path(path))
    try:
        return _Model(root).read()
    except MemoryLimitError as error:
        raise root.error(str(error)) from error


def pomdpx_kind(path: Path) -> str:
    """Return the name of the model's class, from the variables of the file."""
    known = read_variables(read_xml(path).one("Variable"))
    return "MDP" if known.all_visible else "POMDP"


class _Model:
    """Reader of a model, one section after another."""

    def __init__(self, root: Element) -> None:
        if root.tag != "pomdpx":
            raise root.error("not a PomdpX file, whose first element is `<pomdpx>`")
        root.all(*SECTIONS)
        self.root, self.known = root, read_variables(root.one("Variable"))
        known = self.known
        check_size(
            known.count(known.states),
            known.count(known.actions),
            None if known.all_visible else known.symbol_count,
        )

    def read(self) -> NamedModel:
        """Return the model."""
        known = self.known
        moves = self.transitions()
        shown = None if known.all_visible else self.observations()
        reward = self.rewards(moves)
        states, actions = known.count(known.states), known.count(known.actions)
        order = np.lexsort(
            (moves.index(known.after), moves.index(known.states), self.chosen(moves))
        )
        triplets = Triplets(
            self.chosen(moves)[order],
            moves.index(known.states)[order],
            moves.index(known.after)[order],
            moves.weight[order],
        )
        paid, first = map(jnp.asarray, (reward, self.initial()))
        discount = self.discount()
        moved = transition_of(triplets, states=states, actions=actions)
        model: POMDP | MDP
        if shown is None:
            model = MDP(moved, paid, first, discount)
        else:
            seen = self.first_observation(np.asarray(first))
            model = POMDP(
                moved,
                jnp.asarray(shown),
                paid,
                first,
                discount,
                None if seen is None else jnp.asarray(seen),
            )
        try:
            check_model(model)
        except ValueError as error:
            raise PomdpFileError(f"`{self.root.path}`: {error}") from error
        return NamedModel(
            model,
            known.names(known.states),
            known.names(known.actions),
            () if shown is None else known.symbol_names,
        )

    def discount(self) -> float:
        """Return the discount factor."""
        element = self.root.one("Discount")
        word = element.text.strip()
        if not NUMBER.fullmatch(word) or not 0 <= float(word) <= 1:
            raise element.error(f"must be a number in [0, 1], found `{word}`")
        return float(word)

    def factors(
        self, section: str, children: dict[str, int], parents: Sequence[str]
    ) -> list[Factor]:
        """Return the conditional tables of a section, parents first."""
        if not children:
            return []
        element, found = self.root.one(section), dict[str, Factor]()
        for part in element.all("CondProb"):
            var, above = self.variables_of(part)
            if var not in children:
                raise part.error(
                    f"`{var}` must be one of {', '.join(children)} in `<{section}>`"
                )
            if var in found:
                first = found[var].element.line
                raise part.error(f"`{var}` is given twice, first in line {first}")
            found[var] = read_factor(
                part, self.known.values, (*above, var), chances=True
            )
        for name in children:
            if name not in found:
                raise element.error(f"`<CondProb>` of `{name}` is missing")
        return in_order(found, parents)

    def variables_of(self, part: Element) -> tuple[str, list[str]]:
        """Return the variable of a `<CondProb>` or `<Func>`, and its parents."""
        part.all("Var", "Parent", "Parameter")
        names = part.one("Var").text.split()
        if len(names) != 1:
            raise part.error(f"`<Var>` must name one variable, found {names or 'none'}")
        above = part.one("Parent").text.split()
        above = [] if above == ["null"] else above
        for name in above:
            if name not in self.known.values:
                raise part.error(f"unknown variable `{name}` in `<Parent>`")
        return names[0], above

    def chosen(self, terms: Join) -> np.ndarray:
        return terms.index(self.known.actions)

    def initial(self) -> Float[np.ndarray, " S"]:
        """Return the initial distribution."""
        terms = Join({})
        for factor in self.factors("InitialStateBelief", self.known.states, ()):
            terms.extend(factor)
        found = np.zeros(self.known.count(self.known.states))
        found[terms.index(self.known.states)] = terms.weight
        return found

    def transitions(self) -> Join:
        """Return all transitions of positive probability."""
        known = self.known
        terms = Join(known.actions | known.states)
        parents = (*known.actions, *known.states)
        for factor in self.factors("StateTransitionFunction", known.after, parents):
            terms.extend(factor)
        return terms

    def observations(self) -> Float[np.ndarray, "A S O"]:
        """Return Z(o | s', a), in which each symbol has the visible variables."""
        known = self.known
        terms = Join(known.actions | known.after)
        for factor in self.symbol_factors():
            terms.extend(factor)
        shape = (known.count(known.actions), known.count(known.after))
        found = np.zeros((*shape, known.symbol_count))
        symbol = terms.index(known.visible_after | known.symbols)
        found[self.chosen(terms), terms.index(known.after), symbol] = terms.weight
        return found

    def symbol_factors(self) -> list[Factor]:
        known = self.known
        parents = (*known.actions, *known.after)
        return self.factors("ObsFunction", known.symbols, parents)

    def first_observation(
        self, initial: Float[np.ndarray, " S"]
    ) -> Float[np.ndarray, "S O"] | None:
        """Return Z_1(o | s), which shows the visible variables.

        None if these have one possible value at the start.
        """
        known = self.known
        terms = Join(known.states)
        visible = terms.index(known.visible)
        if len(np.unique(visible[initial > 0])) == 1:
            return None
        found = np.zeros((len(visible), known.symbol_count))
        found[np.arange(len(visible)), visible * known.count(known.symbols)] = 1
        return found

    def rewards(self, moves: Join) -> Float[np.ndarray, "S A"]:
        """Return the expected reward r(s, a), summed over reward variables."""
        known, element = self.known, self.root.one("RewardFunction")
        now = Join(known.states | known.actions)
        total = np.zeros(len(now.weight))
        shown: Join | None = None
        lines: dict[str, int] = {}
        for part in element.all("Func"):
            var, above = self.variables_of(part)
            if var not in known.rewards:
                raise part.error(f"`{var}` is not a `<RewardVar>`")
            if var in lines:
                raise part.error(f"`{var}` is given twice, first in line {lines[var]}")
            lines[var] = part.line
            factor = read_factor(part, known.values, above, chances=False)
            if now.columns.keys() >= set(above):
                total += now.lookup(factor)
                continue
            terms = moves
            if not moves.columns.keys() >= set(above):
                shown = self.with_symbols(moves) if shown is None else shown
                terms = shown
            row = terms.index(known.states | known.actions)
            total += np.bincount(row, terms.weight * terms.lookup(factor), len(total))
        return total.reshape(known.count(known.states), known.count(known.actions))

    def with_symbols(self, moves: Join) -> Join:
        """Return all transitions with the symbols after them."""
        terms = Join({})
        terms.columns, terms.weight = dict(moves.columns), moves.weight
        for factor in self.symbol_factors():
            terms.extend(factor)
        return terms
