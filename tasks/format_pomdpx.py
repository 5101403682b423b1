"""PomdpX as a model file format; see `pomdpx`."""

from sdm.tasks.model_formats import ModelFormat, register_format
from sdm.tasks.pomdpx import pomdpx_kind, read_pomdpx

register_format(
    ModelFormat(
        ".pomdpx",
        (".pomdpx", ".pomdpx.gz"),
        read=read_pomdpx,
        kind=pomdpx_kind,
    )
)
