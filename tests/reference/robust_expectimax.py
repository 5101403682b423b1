"""Exact value of a small POMDP with intervals, by cutting planes and linear programmes.

Independent of the solver: no JAX, no points, no upper bounds. V_t(b) is the best
action's min over nature's p of Σ_o V_{t+1}(b_p(o)), a convex function of p. Kelley's
method minimises it: the linear programme has the α-vectors found so far as cuts, and
every new belief adds the supporting α-vector of V_{t+1} there, by recursion.
"""

import numpy as np
from scipy.optimize import linprog

CLOSE = 1e-7  # of HiGHS' feasibility tolerance; bounds of the method meet to this


class RobustExpectimax:
    """The value of one model over one horizon."""

    def __init__(self, model, horizon):
        self.low = np.asarray(model.transition_lower)
        self.high = np.asarray(model.transition_upper)
        self.seen_low = np.asarray(model.observation_lower)
        self.seen_high = np.asarray(model.observation_upper)
        self.joint = model.joint
        self.reward = np.asarray(model.reward)
        self.discount, self.horizon = float(model.discount), horizon
        self.states, self.actions = self.reward.shape
        self.symbols = self.seen_low.shape[-1]

    def value(self, belief, t=0):
        """V_t at an unnormalised belief, and an α-vector that attains it."""
        if t == self.horizon:
            return 0.0, np.zeros(self.states)
        each = [self.action(np.asarray(belief), a, t) for a in range(self.actions)]
        return max(each, key=lambda found: found[0])

    def action(self, belief, a, t):
        """The same for one action."""
        cuts = [[] for _ in range(self.symbols)]
        for s in range(self.states):
            for o in range(self.symbols):
                cuts[o].append(self.value(np.eye(self.states)[s], t + 1)[1])
        while True:
            bound, p, mixture = self.programme(belief, a, cuts)
            total = 0.0
            for o in range(self.symbols):
                value, vector = self.value(belief @ p[:, :, o], t + 1)
                total += value
                cuts[o].append(vector)
            if total - bound <= CLOSE:
                break
        mixed = [w @ np.array(c[: len(w)]) for w, c in zip(mixture, cuts, strict=True)]
        vector = self.reward[:, a] + self.discount * self.reply(a, np.array(mixed))
        return belief @ vector, vector

    def rows(self, a):
        """Constraints A x ≤ b and C x = d on p(s, s', o), as one vector x."""
        shape = self.states, self.states, self.symbols
        upper, total = [], []
        for s in range(self.states):
            one = np.zeros(shape)
            one[s] = 1
            total.append(one.ravel())
            for n in range(self.states):
                if self.joint:
                    for o in range(self.symbols):
                        pair = np.zeros(shape)
                        pair[s, n, o] = 1
                        most = self.high[s, a, n] * self.seen_high[a, n, o]
                        least = self.low[s, a, n] * self.seen_low[a, n, o]
                        upper += [(pair.ravel(), most), (-pair.ravel(), -least)]
                    continue
                moved = np.zeros(shape)
                moved[s, n] = 1
                upper.append((moved.ravel(), self.high[s, a, n]))
                upper.append((-moved.ravel(), -self.low[s, a, n]))
                for o in range(self.symbols):
                    shown = np.zeros(shape)
                    shown[s, n, o] = 1
                    most = shown - self.seen_high[a, n, o] * moved
                    least = self.seen_low[a, n, o] * moved - shown
                    upper += [(most.ravel(), 0.0), (least.ravel(), 0.0)]
        return upper, total

    def programme(self, belief, a, cuts):
        """Nature's best p against the α-vectors in `cuts`, and the dual mixtures."""
        upper, total = self.rows(a)
        size = self.states**2 * self.symbols
        rows = [np.r_[row, np.zeros(self.symbols)] for row, _ in upper]
        ends = [end for _, end in upper]
        for o, vectors in enumerate(cuts):
            for vector in vectors:
                row = np.zeros((self.states, self.states, self.symbols))
                row[:, :, o] = np.outer(belief, vector)
                rows.append(np.r_[row.ravel(), -np.eye(self.symbols)[o]])
                ends.append(0.0)
        found = linprog(
            np.r_[np.zeros(size), np.ones(self.symbols)],
            A_ub=np.array(rows),
            b_ub=ends,
            A_eq=np.array([np.r_[row, np.zeros(self.symbols)] for row in total]),
            b_eq=np.ones(self.states),
            bounds=[(0, 1)] * size + [(None, None)] * self.symbols,
        )
        assert found.status == 0, found.message
        weights = np.maximum(-found.ineqlin.marginals[len(upper) :], 0)
        mixture, at = [], 0
        for vectors in cuts:
            part = weights[at : at + len(vectors)]
            mixture.append(part / part.sum())
            at += len(vectors)
        p = found.x[:size].reshape(self.states, self.states, self.symbols)
        return found.fun, np.maximum(p, 0), mixture

    def reply(self, a, gain):
        """Nature's smallest Σ p(s', o | s) gain[o, s'] for every s."""
        upper, total = self.rows(a)
        cost = np.broadcast_to(gain.T, (self.states, self.states, self.symbols))
        found = linprog(
            cost.ravel(),
            A_ub=np.array([row for row, _ in upper]),
            b_ub=[end for _, end in upper],
            A_eq=np.array(total),
            b_eq=np.ones(self.states),
            bounds=[(0, 1)] * cost.size,
        )
        p = found.x.reshape(cost.shape)
        return (p * cost).sum((1, 2))
