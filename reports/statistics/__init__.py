"""What may be said of accuracies: intervals, tests, equivalence, and the variance that a table's methods share."""
