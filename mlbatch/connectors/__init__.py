"""One room per outside system. Its SDK is imported there and nowhere else."""
