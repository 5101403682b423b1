"""A robot in a grid with slip probabilities in intervals.

The model `multiObj_robotIMDP` of the tests of IntervalMDP.jl (Mathiesen, Lahijanian,
Laurenti, 2024), rebuilt from its pattern: 17 rows of 12 cells, a state outside of the
grid, which leads to the absorbing failure, and an absorbing goal. A move succeeds with
a probability of about 0.95 and slips to the other three neighbours; several neighbours
outside of the grid are one successor with the largest of their intervals.
"""

import numpy as np

WIDTH, CELLS = 12, 204
OUTSIDE, FAILURE, GOAL, STATES = 204, 205, 206, 207
# Largest probabilities of up, right, down and left; the smallest of the intended
# direction is positive.
LARGEST = np.array(
    [
        [0.999997, 0.084, 0.014, 0.068],
        [0.056, 0.999997, 0.078, 0.008],
        [0.006, 0.067864, 0.999997, 0.076],
        [0.082, 0.007984, 0.077844, 0.999997],
    ]
)
SMALLEST = np.where(
    np.eye(4) > 0, np.array([0.901999, 0.913999, 0.923998, 0.911999])[:, None], 1e-6
)
TRAPS = {
    *range(36, 41), *range(87, 90), *range(91, 94), *range(99, 102), *range(103, 106),
    *range(111, 114), *range(115, 118), 123, 135, 147, 154, 155, 159, 175, 187, 199,
    202, 203,
}  # fmt: skip
GOALS = {166, 167, 178, 179, 190, 191}


def neighbours(cell):
    """The cells up, right, down and left of a cell."""
    row, column = divmod(cell, WIDTH)
    for up, right in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        inside = 0 <= row + up < CELLS // WIDTH and 0 <= column + right < WIDTH
        yield cell + up * WIDTH + right if inside else OUTSIDE


def robot_grid():
    """Lower and upper ends [207, 4, 207] of the probabilities."""
    lower, upper = np.zeros((2, STATES, 4, STATES))
    for state in range(STATES):
        if state in GOALS or state == GOAL:
            lower[state, :, GOAL] = upper[state, :, GOAL] = 1
        elif state in TRAPS or state >= CELLS:
            lower[state, :, FAILURE] = upper[state, :, FAILURE] = 1
        else:
            for action in range(4):
                for direction, there in enumerate(neighbours(state)):
                    at = state, action, there
                    lower[at] = max(lower[at], SMALLEST[action, direction])
                    upper[at] = max(upper[at], LARGEST[action, direction])
    return lower, upper
