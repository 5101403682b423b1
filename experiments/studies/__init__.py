"""Studies: experiments that measure something else than policies, one file each."""
