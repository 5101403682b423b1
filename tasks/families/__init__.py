"""Task families that come with the package, one file each; each registers itself."""
