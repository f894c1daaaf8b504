"""Faults on real processes and networks: what scripts/faults and scripts/soak share."""
