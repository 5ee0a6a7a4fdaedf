"""Curvature of any loss at any parameters: operators in, numbers with error bars out."""
