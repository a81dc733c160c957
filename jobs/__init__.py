"""Jobs: one folder each."""
