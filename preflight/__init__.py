"""Finds mistakes before anything is touched, and says what is wrong, where, and what is allowed instead.

Variables are checked one by one first; what compares them with others, or with the account, takes those that passed.
"""
