"""Training, host or not: the paper's recipe as values, what a step needs of a GPU, which parameters train."""
