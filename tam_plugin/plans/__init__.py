"""Budgets of a whole training set, decided before training: made once, looked up by every worker.

``keys`` names a sample, ``table`` holds and finds its plan, ``check`` tells whether plans belong to a training run;
these three are all that a training worker imports. ``making`` makes them.
"""
