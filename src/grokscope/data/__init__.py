"""Data sets, their splits, and the batches drawn from them.

A data set is one file with a function that returns a `Dataset`. Everything random is a pure
function of a seed: a split of (data, seed), a batch of (seed, step).
"""
