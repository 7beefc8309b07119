"""What other programs load of this package."""
