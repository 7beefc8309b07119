"""The gallery: one HTML file a run, in which one sees where the model looks and how that moves over training."""
