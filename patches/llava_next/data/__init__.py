"""The host's training set: each sample's budget, frames, instruction and words."""
