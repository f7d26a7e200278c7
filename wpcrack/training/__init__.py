"""Trainings of the networks."""
