"""Factors of a PomdpX file: tables over variables, and sums of their products.

A distribution over several variables is a product of one conditional table for each. A
`Join` enumerates its nonzero terms, one variable after another, without an array over
all combinations of values.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sdm.storage.memory import check_memory
from sdm.tasks.array_checks import ROW_SUM_TOLERANCE
from sdm.tasks.cassandra_words import LARGEST, NUMBER, WHOLE
from sdm.tasks.pomdpx_xml import Element

Sizes = dict[str, tuple[str, ...]]  # the values of each variable


class Factor(NamedTuple):
    """A table over variables.

    Attributes:
        variables: names of the variables, one for each axis of `table`.
        table: a number for each combination of values.
        element: where it stands in the file.

    """

    variables: tuple[str, ...]
    table: Float[np.ndarray, "..."]
    element: Element


def read_factor(
    element: Element, values: Sizes, variables: Sequence[str], *, chances: bool
) -> Factor:
    """Read the table in `<Parameter>` of a `<CondProb>` or a `<Func>`.

    Args:
        element: the `<CondProb>` or `<Func>`.
        values: the values of each variable.
        variables: the variables of each entry's `<Instance>`, in order.
        chances: whether the numbers are probabilities, whose last variable is `<Var>`.

    Raises:
        PomdpFileError: if the table is not in the format, or not supported.

    """
    parameter = element.one("Parameter")
    kind = parameter.attributes.get("type", "TBL").strip()
    if kind != "TBL":
        raise parameter.error(
            f'type="{kind}" is not supported: write the numbers as a table, type="TBL"'
        )
    shape = tuple(len(values[name]) for name in variables)
    check_memory(8 * int(np.prod(shape, dtype=object)), f"`<{element.tag}>`")
    table = np.zeros(shape)
    for entry in parameter.all("Entry"):
        entry.all("Instance", "ProbTable" if chances else "ValueTable")
        where, dashes = _instance(entry.one("Instance"), values, variables)
        numbers = entry.one("ProbTable" if chances else "ValueTable")
        found = _numbers(
            numbers,
            [shape[i] for i in dashes],
            chances=chances,
            last=len(shape) - 1 in dashes,
        )
        open_axes = [i for i, index in enumerate(where) if isinstance(index, slice)]
        axes = [shape[i] if i in dashes else 1 for i in open_axes]
        table[tuple(where)] = found.reshape(axes)
    factor = Factor(tuple(variables), table, element)
    if chances:
        _check_sums(factor, values)
    return factor


def _instance(
    element: Element, values: Sizes, variables: Sequence[str]
) -> tuple[list[int | slice], list[int]]:
    """Return the index of each variable, and the axes with `-`."""
    words = element.text.split()
    if len(words) != len(variables):
        raise element.error(
            f"must have a value, `*` or `-` for each of {' '.join(variables)}, found "
            f"`{' '.join(words)}`"
        )
    where: list[int | slice] = []
    for word, name in zip(words, variables, strict=True):
        known = values[name]
        if word in ("*", "-"):
            where.append(slice(None))
        elif word in known:
            where.append(known.index(word))
        elif WHOLE.fullmatch(word) and int(word[:9]) < len(known):
            where.append(int(word[:9]))
        else:
            raise element.error(
                f"unknown value `{word}` of `{name}`: must be {_some(known)}"
            )
    return where, [i for i, word in enumerate(words) if word == "-"]


def _some(known: tuple[str, ...]) -> str:
    return ", ".join(known[:5]) + ", …" * (len(known) > 5)


def _numbers(
    element: Element, sizes: list[int], *, chances: bool, last: bool
) -> Float[np.ndarray, " N"]:
    """Return the numbers of an entry, the last `-` varying fastest.

    `last` says whether the last variable, that of `<Var>`, has a `-`.
    """
    words, count = element.text.split(), int(np.prod(sizes))
    if chances and words == ["uniform"]:
        if not last:
            raise element.error("`uniform` needs `-` for the variable of `<Var>`")
        return np.full(count, 1 / sizes[-1])
    if chances and words == ["identity"]:
        if len(sizes) != 2 or sizes[0] != sizes[1]:
            raise element.error(
                "`identity` needs `-` for two variables with equally many values, "
                f"found {sizes or 'none'}"
            )
        return np.eye(sizes[0]).ravel()
    if len(words) != count:
        raise element.error(f"must have {count} numbers, found {len(words)}")
    for word in words:
        wrong = not NUMBER.fullmatch(word) or not abs(float(word)) <= LARGEST
        if wrong or (chances and not 0 <= float(word) <= 1):
            what = "a probability in [0, 1]" if chances else "a number"
            raise element.error(f"expected {what}, found `{word}`")
    return np.array([float(word) for word in words])


def _check_sums(factor: Factor, values: Sizes) -> None:
    sums = factor.table.sum(-1)
    wrong = np.argwhere(np.abs(sums - 1) > ROW_SUM_TOLERANCE)
    if len(wrong):
        parents, at = factor.variables[:-1], tuple(wrong[0])
        where = " ".join(
            f"{name}={values[name][i]}" for name, i in zip(parents, at, strict=True)
        )
        raise factor.element.error(
            f"probabilities of `{factor.variables[-1]}` sum to {sums[at]:.6g}, not 1"
            + f" for {where}" * bool(parents)
            + f" ({len(wrong)} of {sums.size} rows are wrong)"
        )


class Join:
    """Terms of a product of tables: values of variables, and a weight.

    Attributes:
        columns: the value of each variable in every term.
        weight: the product of the tables' numbers.

    """

    def __init__(self, sizes: dict[str, int]) -> None:
        """Make a term of weight 1 for every combination of values."""
        total = int(np.prod([*sizes.values()], dtype=object))
        check_memory(8 * total * (len(sizes) + 2), f"{total} combinations of values")
        index = np.indices(tuple(sizes.values())).reshape(len(sizes), total)
        self.columns = dict(zip(sizes, index, strict=True))
        self.weight = np.ones(total)

    def row(self, factor: Factor, variables: Sequence[str]) -> Int[np.ndarray, " N"]:
        """Return the index of each term in the first axes of a table."""
        row = np.zeros(len(self.weight), np.int64)
        for name, size in zip(variables, factor.table.shape, strict=False):
            row = row * size + self.columns[name]
        return row

    def extend(self, factor: Factor) -> None:
        """Multiply by a conditional table of a new variable, its last.

        Raises:
            MemoryLimitError: if the terms do not fit in memory.

        """
        *parents, new = factor.variables
        flat = factor.table.reshape(-1, factor.table.shape[-1])
        place, value = np.nonzero(flat)
        each = np.bincount(place, minlength=len(flat))
        first = np.cumsum(each) - each
        row = self.row(factor, parents)
        repeats = each[row]
        total = int(repeats.sum())
        check_memory(8 * total * (len(self.columns) + 5), f"{total} transitions")
        term = np.repeat(np.arange(len(row)), repeats)
        start = np.cumsum(repeats) - repeats
        at = first[row[term]] + np.arange(total) - start[term]
        self.columns = {name: x[term] for name, x in self.columns.items()}
        self.columns[new] = value[at]
        self.weight = self.weight[term] * flat[place[at], value[at]]

    def lookup(self, factor: Factor) -> Float[np.ndarray, " N"]:
        """Return a table's number for each term."""
        return factor.table.ravel()[self.row(factor, factor.variables)]

    def index(self, sizes: dict[str, int]) -> Int[np.ndarray, " N"]:
        """Return the number of each term's combination, the last varying fastest."""
        found = np.zeros(len(self.weight), np.int64)
        for name, size in sizes.items():
            found = found * size + self.columns[name]
        return found


def in_order(factors: dict[str, Factor], known: Sequence[str]) -> list[Factor]:
    """Return conditional tables so that parents come before their children.

    Raises:
        PomdpFileError: if a parent is unknown here, or parents form a cycle.

    """
    done, left, ordered = set(known), dict(factors), []
    while left:
        ready = [n for n, f in left.items() if done.issuperset(f.variables[:-1])]
        if not ready:
            name, factor = next(iter(left.items()))
            lacking = [x for x in factor.variables[:-1] if x not in done]
            raise factor.element.error(
                f"`{name}` depends on `{lacking[0]}`, which must be one of "
                f"{', '.join((*known, *factors))}, without cycles"
            )
        for name in ready:
            ordered.append(left.pop(name))
            done.add(name)
    return ordered
