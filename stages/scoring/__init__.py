"""How good a model is: scores, the best linear model beside it, and a figure of both.

Read first `scores`, then `least_squares` and `figure`.
"""
