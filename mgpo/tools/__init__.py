"""Commands around training: what a run will cost, whether all is well, matrices of runs, images that leaked."""
