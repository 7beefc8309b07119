"""Evaluation: greedy episodes, counterfactual crops, reports and benchmark scores."""
