"""L-BFGS for many problems at once."""
