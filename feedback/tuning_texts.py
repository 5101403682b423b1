"""Texts to tune a language model on, as a judge or as a policy, of one family."""

import numpy as np

from sdm.feedback.comparisons import choose_pairs
from sdm.feedback.config import FeedbackConfig
from sdm.feedback.judge import FIRST, TIE, Items
from sdm.feedback.judges.model import CHOICES, question
from sdm.feedback.judges.synthetic import SyntheticJudge
from sdm.feedback.study import solve_for
from sdm.feedback.subjects import captions_of, goal_of


def policy_texts(config: FeedbackConfig, seed: int) -> list[str]:
    """Return a text of episodes of the oracle for each training task.

    The text is what `sdm finetune --schema words` trains on: episodes, one per line.
    """
    shown = solve_for(config, seed, split="train").demonstrations
    return ["\n".join(episodes) for episodes in shown]


def reward_texts(config: FeedbackConfig, seed: int) -> list[str]:
    """Return questions about pairs of states of each training task, with answers.

    The answers are those of exact values; ties are left out.
    """
    solved = solve_for(config, seed, split="train")
    captions = captions_of(config.family.spaces, "mdp")
    goal = goal_of(config.family, config.reward.goal)
    judge, found = SyntheticJudge(1.0), []
    for task, value in enumerate(np.asarray(solved.solution.state_value[:, 0])):
        items = Items(captions, value, goal)
        most = config.reward.comparisons
        pairs = choose_pairs(len(captions), most, seed=(seed, task))
        answers = judge.compare(items, pairs, seed=(seed, task))
        for (a, b), answer in zip(pairs, answers, strict=True):
            if answer != TIE:
                text = question(items, captions[a], captions[b])
                found.append(text + CHOICES[0 if answer == FIRST else 1])
    order = np.random.default_rng([seed, 3]).permutation(len(found))
    return [found[i] for i in order]
