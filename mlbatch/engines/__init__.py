"""Who runs the parts."""
