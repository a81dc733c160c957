"""The proof: what is promised of runs, put to the test with real processes and real servers."""
