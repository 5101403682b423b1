"""Solvers in JAX: compute solutions of models, thousands of tasks at once."""

from sdm.solvers_jax.apomdp import APOMDPSolution, DiscretisedBeliefs
from sdm.solvers_jax.backward_induction import (
    BackwardInduction,
    MDPSolution,
    backward_induction,
)
from sdm.solvers_jax.belief_tree import belief_tree_value
from sdm.solvers_jax.depth_first import DepthFirst
from sdm.solvers_jax.incremental_pruning import IncrementalPruning
from sdm.solvers_jax.interval_pomdp import IntervalPoints, IntervalSolution
from sdm.solvers_jax.methods import Method, Solution, methods_for, register_method
from sdm.solvers_jax.momdp import MixedObservability, MOMDPSolution
from sdm.solvers_jax.plan import Plan
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.solvers_jax.pomdp import PointBased, POMDPSolution
from sdm.solvers_jax.rectangular_mdp import (
    RectangularBackwardInduction,
    RectangularSolution,
    worst_case_value,
)
from sdm.solvers_jax.robust_mdp import RobustBackwardInduction
from sdm.solvers_jax.search_solution import SearchSolution
from sdm.solvers_jax.solution_files import load_solution, save_solution
from sdm.solvers_jax.solve import solve
from sdm.solvers_jax.stage_vectors import export_policy
from sdm.tasks.belief import (
    BeliefFilter,
    BeliefPolicy,
    FilterState,
    belief_filter,
    true_model,
)
from sdm.tasks.cassandra import PomdpFile, load_pomdp, read_pomdp
from sdm.tasks.cassandra_writer import save_pomdp
from sdm.tasks.families.darkroom import DarkroomFamily
from sdm.tasks.families.energy import EnergyFamily
from sdm.tasks.hidden_mdp import hidden_model
from sdm.tasks.model_files import load_model, load_npz, save_npz
from sdm.tasks.models import APOMDP, MDP, POMDP, RobustMDP, check_model
from sdm.tasks.momdp import MOMDP
from sdm.tasks.momdp_filter import HiddenFilter, HiddenPolicy
from sdm.tasks.momdp_flat import flat_mdp, flat_pomdp
from sdm.tasks.policy import Policy, TabularPolicy
from sdm.tasks.rectangular import KLMDP, L1MDP, IntervalMDP, IntervalPOMDP
from sdm.tasks.rollout import Trajectory, rollout
from sdm.tasks.simulation import OneTask, batch_of_one

__all__ = [
    "APOMDP",
    "KLMDP",
    "L1MDP",
    "MDP",
    "MOMDP",
    "POMDP",
    "APOMDPSolution",
    "BackwardInduction",
    "BeliefFilter",
    "BeliefPolicy",
    "DarkroomFamily",
    "DepthFirst",
    "DiscretisedBeliefs",
    "EnergyFamily",
    "FilterState",
    "HiddenFilter",
    "HiddenPolicy",
    "IncrementalPruning",
    "IntervalMDP",
    "IntervalPOMDP",
    "IntervalPoints",
    "IntervalSolution",
    "MDPSolution",
    "MOMDPSolution",
    "Method",
    "MixedObservability",
    "OneTask",
    "POMDPSolution",
    "Plan",
    "PointBased",
    "Policy",
    "PomdpFile",
    "RectangularBackwardInduction",
    "RectangularSolution",
    "RobustBackwardInduction",
    "RobustMDP",
    "SearchSolution",
    "Solution",
    "TabularPolicy",
    "Trajectory",
    "backward_induction",
    "batch_of_one",
    "belief_filter",
    "belief_tree_value",
    "check_model",
    "evaluate_policy",
    "export_policy",
    "flat_mdp",
    "flat_pomdp",
    "hidden_model",
    "load_model",
    "load_npz",
    "load_pomdp",
    "load_solution",
    "methods_for",
    "read_pomdp",
    "register_method",
    "rollout",
    "save_npz",
    "save_pomdp",
    "save_solution",
    "solve",
    "true_model",
    "worst_case_value",
]
