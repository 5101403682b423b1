"""Every figure and table of the paper, from frozen configurations to a report."""
