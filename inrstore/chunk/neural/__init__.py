"""Mode neural: every value is predicted by an integer network from values before it (specification section 13)."""
