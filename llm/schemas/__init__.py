"""Text schemas, one file each; each registers itself."""
