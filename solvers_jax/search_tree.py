"""Depth-first search over beliefs along the gap at the root (Smith, Simmons, 2005).

A trial follows the action of the highest upper bound and the symbol whose belief adds
most to the gap, until the gap of a belief is small. On the way back, it makes an
α-vector and a sawtooth point at every belief of the path. SARSOP (Kurniawati, Hsu, Lee,
2008) samples in a similar way. Some trials play the best plan instead, and draw the
symbols: their beliefs are those that the policy meets, which raises the lower bound.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from sdm.solvers_jax.search_model import SearchModel
from sdm.solvers_jax.search_nodes import Belief, Block, Node, Outlook, Stage

LEAST = 1e-14  # states of a lower probability are left out of the beliefs of a path
GAIN = 1e-12  # smallest improvement that makes an α-vector, relative to the value
DEEPEST = 10_000  # decisions of one trial


class Tree:
    """Beliefs that were reached, and the bounds of every stage.

    Attributes:
        stages: the bounds; the last has value zero if there is a horizon.
        roots: the beliefs before the first action.
        changes: number of new nodes, plans and points.

    """

    def __init__(
        self,
        model: SearchModel,
        horizon: int | None,
        *,
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """Compute the first bounds.

        Args:
            model: the task.
            horizon: number of decisions T; None for no end.
            enough: whether to stop improving the first bounds without a horizon.

        """
        self.model = model
        self.horizon = horizon
        self.changes = 0
        self.rng = np.random.default_rng(0)
        if horizon is None:
            first = [model.forever(enough)]
        else:
            first = model.stages(horizon)[::-1]
        symbols = model.shown.shape[-1]
        self.stages = [Stage(*bounds, symbols) for bounds in first]
        self.beliefs: dict[tuple[bytes, bytes], Belief] = {}
        self.nodes: dict[tuple[int, int], Node] = {}
        self.roots = [self._node(*_possible(root, 0.0), 0) for root in model.root]

    @property
    def bounds(self) -> tuple[float, float]:
        """Bounds on the value before the first symbol."""
        lower, upper = (
            sum(
                p * getattr(root, name)
                for p, root in zip(self.model.mass, self.roots, strict=True)
            )
            for name in ("lower", "upper")
        )
        return float(lower), float(upper)

    def index(self, t: int) -> int:
        """Return the place of the bounds of stage `t`."""
        return 0 if self.horizon is None else t

    def stage(self, t: int) -> Stage:
        """Return the bounds of stage `t`."""
        return self.stages[self.index(t)]

    def _node(self, states: np.ndarray, chance: np.ndarray, t: int) -> Node:
        """Return the node of a belief at a stage."""
        key = (states.tobytes(), np.round(chance, 12).tobytes())
        belief = self.beliefs.setdefault(key, Belief(states, chance))
        at = (id(belief), self.index(t))
        if at not in self.nodes:
            stage = self.stage(t)
            above = belief.chance @ stage.points.informed[belief.states]
            plans = stage.vectors.rows["value"][:, belief.states] @ belief.chance
            self.changes += 1
            self.nodes[at] = Node(
                belief,
                t,
                belief.chance @ self.model.reward[belief.states],
                above,
                float(above.max()),
                float(plans.max()),
                int(plans.argmax()),
            )
        return self.nodes[at]

    def _outlook(self, node: Node, a: int) -> tuple[Block, Outlook]:
        """Return the beliefs after an action, and their bounds."""
        belief = node.belief
        if a not in belief.blocks:
            belief.blocks[a] = Block(self.model, belief.states, belief.chance, a)
        block = belief.blocks[a]
        if a not in node.outlooks:
            points = self.stage(node.t + 1).points
            base = block.joint @ points.corner[block.states]
            informed = (block.joint @ points.informed[block.states]).max(1)
            nothing = np.full(len(base), -np.inf)
            node.outlooks[a] = Outlook(
                np.minimum(base, informed), base, nothing, np.zeros(len(base), int)
            )
        return block, node.outlooks[a]

    def _look_ahead(self, node: Node, a: int) -> tuple[Block, Outlook]:
        """Return the beliefs after an action, with lower bounds by all plans."""
        block, outlook = self._outlook(node, a)
        vectors = self.stage(node.t + 1).vectors
        if outlook.plans < vectors.rows.count:
            value, plan = vectors.best(block.joint, block.states, outlook.plans)
            better = value > outlook.lower
            outlook.lower = np.where(better, value, outlook.lower)
            outlook.plan = np.where(better, plan, outlook.plan)
            outlook.plans = vectors.rows.count
        return block, outlook

    def raise_floor(self, node: Node) -> None:
        """Make an α-vector if it is better at the node than all others."""
        value, a = self._best_action(node)
        if value > node.lower + GAIN * max(1, abs(node.lower)):
            self._add_vector(node, a)

    def _best_action(self, node: Node) -> tuple[float, int]:
        """Return the highest lower bound of an action, and the action.

        Only actions whose upper bound was once the highest are examined: the others are
        not better by what is known. The value is -inf if none can be as good as the
        node's best plan.
        """
        best, chosen = -np.inf, -1
        for a in node.outlooks:
            if node.above[a] >= node.lower:
                _, outlook = self._look_ahead(node, a)
                value = node.paid[a] + self.model.discount * outlook.lower.sum()
                if value > best:
                    best, chosen = float(value), a
        return best, chosen

    def _add_vector(self, node: Node, a: int) -> None:
        """Add the α-vector of a node's best plan, which starts with action `a`."""
        model, (block, outlook) = self.model, self._outlook(node, a)
        after = np.full(model.shown.shape[-1], outlook.plan[block.mass.argmax()])
        after[block.symbols] = outlook.plan  # others are impossible at this belief
        plans = self.stage(node.t + 1).vectors.rows["value"][after]
        ahead = model.expected(a, np.einsum("so,os->s", model.shown[a], plans))
        value = model.reward[:, a] + model.discount * ahead
        here = self.stage(node.t).vectors.rows
        plan = here.append(value=value, action=a, after=after)
        earned = float(value[node.belief.states] @ node.belief.chance)
        if earned > node.lower:
            node.lower, node.plan = earned, plan
        self.changes += 1

    def lower_ceiling(self, node: Node) -> int:
        """Update the upper bound, and return the action of the highest one.

        An action's bound is examined only while it is the highest.
        """
        points, examined = self.stage(node.t + 1).points, set()
        while (a := int(node.above.argmax())) not in examined:
            examined.add(a)
            block, outlook = self._outlook(node, a)
            if outlook.points != points.log:
                drop = points.drops(block.joint, block.states, outlook.points)
                outlook.upper = np.minimum(outlook.upper, outlook.base - drop)
                outlook.points = points.log
            bound = node.paid[a] + self.model.discount * outlook.upper.sum()
            node.above[a] = min(node.above[a], bound)
        node.upper = min(node.upper, float(node.above[a]))
        return a

    def trial(
        self, width: float, stop: Callable[[], bool], *, play: bool = False
    ) -> None:
        """Follow the gap from a root until it is at most `width`, and go back.

        Args:
            width: gap at the root, in the units of the values.
            stop: function that says whether to go no deeper.
            play: follow the best plan and random symbols instead, until the gap of a
                belief, discounted to the root, is at most `width`.

        """
        node, path = self._root(width, play), list[Node]()
        last = DEEPEST if self.horizon is None else self.horizon
        while len(path) < last and not stop():
            path.append(node)
            a = self.lower_ceiling(node)
            if play:
                value, best = self._best_action(node)
                a = best if value > -np.inf else a
            block, outlook = self._look_ahead(node, a)
            if node.upper - node.lower <= width or not self.model.discount:
                break
            width /= self.model.discount
            if play:
                row = self._drawn(block.mass)
            else:
                excess = outlook.upper - outlook.lower - width * block.mass
                row = int(excess.argmax())
                if excess[row] <= 0:
                    break
            node = self._child(node, a, row)
        for node in reversed(path):
            self._back_up(node)

    def _root(self, width: float, play: bool) -> Node:
        """Return the belief where a trial begins."""
        mass = self.model.mass
        if play:
            return self.roots[self._drawn(mass)]
        gaps = [root.upper - root.lower - width for root in self.roots]
        return self.roots[int(np.argmax(mass * gaps))]

    def _drawn(self, mass: Float[np.ndarray, " N"]) -> int:
        """Return a random index, with probabilities proportional to `mass`."""
        return int(self.rng.choice(len(mass), p=mass / mass.sum()))

    def _child(self, node: Node, a: int, row: int) -> Node:
        """Return the node after an action and a symbol."""
        if (a, row) not in node.children:
            block = node.belief.blocks[a]
            here, chance = _possible(block.joint[row] / block.mass[row], LEAST)
            node.children[a, row] = self._node(block.states[here], chance, node.t + 1)
        return node.children[a, row]

    def _back_up(self, node: Node) -> None:
        """Update both bounds of a node and of its stage."""
        self.lower_ceiling(node)
        belief, points = node.belief, self.stage(node.t).points
        before = points.log
        node.place = points.improve(
            node.place, belief.states, belief.chance, node.upper
        )
        self.changes += points.log != before
        self.raise_floor(node)


def _possible(
    belief: Float[np.ndarray, " S"], least: float
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Return the states of a larger probability than `least`, and the belief there."""
    states = np.flatnonzero(belief > least)
    return states, belief[states] / belief[states].sum()
