"""Studies: a matrix of runs from one file, made one after another, and a page of tables and curves."""
