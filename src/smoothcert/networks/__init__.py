"""Networks made elsewhere: their architectures, weights, libraries, and what stands before them.

Classifiers ask them for scores and encoders for features, so the reading of names, files and preprocessing is
here once. May import checkpoints, protocols and errors; draws no noise and knows no sigma.
"""
