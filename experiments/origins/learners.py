"""Every registered learner, under its name."""

from sdm.experiments.learned import Learned
from sdm.experiments.origin import add_origin
from sdm.policies.learner import learners

for _name in learners():
    add_origin(Learned(_name))
