"""What every command needs of a machine: whole files, several processes, provenance."""
