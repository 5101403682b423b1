"""Origins of policies, one file each."""
