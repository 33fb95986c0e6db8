"""What a network predicts: from features to the parameters of a distribution over targets, and the loss of targets.

A head knows one prediction, for any leading axes; time, search and the names of classes live elsewhere.
"""
