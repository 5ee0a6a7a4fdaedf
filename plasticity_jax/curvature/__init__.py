"""Curvature of any JAX loss: operators in, numbers with error bars out."""
