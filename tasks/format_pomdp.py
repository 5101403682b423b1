"""Cassandra's `.POMDP` text as a model file format; see `cassandra`."""

from pathlib import Path

from sdm.tasks.cassandra import read_pomdp
from sdm.tasks.cassandra_preamble import has_observations
from sdm.tasks.model_formats import ModelFormat, NamedModel, register_format


def _read(path: Path) -> NamedModel:
    return NamedModel(*read_pomdp(path))


def _kind(path: Path) -> str:
    if has_observations(path):
        return "POMDP"
    return type(read_pomdp(path).model).__name__  # an MDP, unless lines are missing


register_format(
    ModelFormat(
        ".POMDP",
        (".pomdp", ".pomdp.gz", ".mdp", ".mdp.gz"),
        read=_read,
        kind=_kind,
        default=True,
    )
)
