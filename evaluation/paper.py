"""What Zhang, Aghaei, Saghafian (2026) report, for tests like theirs.

Gaps in per cent of the optimal return, read from their text and figures. Their task
parameters are not public: these stand beside ours for orientation.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from sdm.data.benchmark import EvaluationConfig
from sdm.tasks.families import DarkroomFamily, EnergyFamily

# Fig. 2 left and Fig. 5: by horizon.
MDP = {
    10: {"random": "57.6", "icl": "15.9", "sft": "3", "dpt": "7", "oracle": "0"},
    20: {"random": "49.6", "icl": "31.1", "sft": "15", "dpt": "26", "oracle": "0"},
    30: {"random": "46.4", "icl": "43.2", "sft": "15", "dpt": "43", "oracle": "0"},
}
# Fig. 2 right and Fig. 6: by the chance to see the true state, hardest first.
POMDP = {
    0.6: {"sft": "16", "dpt": "22", "oracle": "0"},
    0.8: {"sft": "10", "dpt": "25", "oracle": "0"},
    1.0: {"sft": "9", "dpt": "26", "oracle": "0"},
}
# Fig. 3 and Fig. 6: pessimistic, by the size of the ambiguity set.
APOMDP = {
    2: {"sft": "15", "dpt": "26", "oracle": "0"},
    10: {"sft": "22", "dpt": "37", "oracle": "0"},
}
# Fig. 9: returns of 0, 87 and 92.
DARKROOM = {"random": "100", "sft": "5", "oracle": "0"}
# Fig. 7: MDPs of lower p than any trained on, by horizon; POMDPs of another q.
MDP_ELSEWHERE = {
    10: {"sft": "0", "oracle": "0"},
    20: {"sft": "6", "oracle": "0"},
    30: {"sft": "7", "oracle": "0"},
}
POMDP_ELSEWHERE = {0.7: {"sft": "10", "oracle": "0"}}
ELSEWHERE = (0.05, 0.2)  # ours: theirs is "lower than in training"
# Fig. 8: MDPs after demonstrations of random actions, at every horizon about 20 %.
MDP_RANDOM = {horizon: {"sft": "20", "oracle": "0"} for horizon in MDP}

WORDS = {
    "random": "random actions",
    "icl": "Llama-2-7B in context only",
    "sft": "Llama-2-7B fine-tuned",
    "dpt": "DPT",
    "oracle": "oracle",
}

# The tests that are like theirs, in the words of the command line.
REPORTED = {
    "mdp": "--horizon 10, 20 and 30 with the default tasks and two demonstrations",
    "pomdp": "--q 0.6, 0.7, 0.8 and 1 with --horizon 10 and the default tasks",
    "apomdp": "--K 2 and 10 with --alpha 1, --horizon 10 and the default tasks",
    "darkroom": "--horizon 100 with the default tasks",
}


def paper_rows(config: EvaluationConfig) -> Mapping[str, str]:
    """The paper's gaps for a test like this one, by the keys of `WORDS`; perhaps none.

    A test is like theirs if it shows two demonstrations and its tasks are the defaults,
    which were chosen to fit; of APOMDPs, the pessimistic ones. MDPs may be shown random
    demonstrations, or have the lower p of our tests out of distribution.
    """
    family, shown = config.family, config.demonstrations
    if config.support != 2 or (shown != "optimal" and config.setting != "mdp"):
        return {}
    if isinstance(family, DarkroomFamily):
        alike = family == DarkroomFamily(split=family.split)
        return DARKROOM if alike and config.horizon == 100 else {}
    plain = EnergyFamily()
    for name in ("max_energy", "charge_cost", "discount"):
        if getattr(family, name) != getattr(plain, name):
            return {}
    range_of_p = family.p_min, family.p_max
    usual = range_of_p == (plain.p_min, plain.p_max)
    if config.setting == "mdp":
        table = MDP if shown == "optimal" else MDP_RANDOM
        if not usual:
            known = range_of_p == ELSEWHERE and shown == "optimal"
            table = MDP_ELSEWHERE if known else {}
        return table.get(config.horizon, {})
    if config.horizon != 10 or not usual:
        return {}
    if config.setting == "pomdp":
        return (POMDP | POMDP_ELSEWHERE).get(family.q, {})
    return APOMDP.get(family.models, {}) if family.alpha == 1 else {}


def paper_column(rows: Mapping[str, str], policies: Iterable[str]) -> dict[str, str]:
    """The paper's gap beside each policy that it has the like of."""
    return {name: rows[kind] for name in policies if (kind := _kind(name)) in rows}


def _kind(policy: str) -> str:
    """Which of the paper's rows a policy of this name is to be compared with."""
    prefix, _, rest = policy.partition(":")
    if prefix == "icl" and (Path(rest) / "merged.json").is_file():
        return "sft"
    if policy in ("random", "oracle") or prefix in ("icl", "dpt"):
        return prefix
    return "sft" if (Path(policy) / "config.yaml").is_file() else ""


def caption(rows: Mapping[str, str], setting: str) -> str:
    """The paper's rows in one line, or which tests of the setting it has."""
    if not rows:
        return f"The paper reports no such test, but {REPORTED[setting]}"
    told = ", ".join(f"{WORDS[kind]} {gap}" for kind, gap in rows.items())
    return f"The paper, for orientation: {told}"
