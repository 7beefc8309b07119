"""Commands around training: what it will see, what it will cost, whether all is well, matrices of runs, leaks."""
