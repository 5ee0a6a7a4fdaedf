"""Everything done to keep plasticity: one file per method, one registry."""

INTERVENTIONS = {}
