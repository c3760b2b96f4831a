"""Query → TaskDistribution."""
