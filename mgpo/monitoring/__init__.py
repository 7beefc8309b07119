"""What can be told from a run while it is going on. Pure: it takes numbers and records, and no trainer."""
