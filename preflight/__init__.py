"""Finds mistakes before anything is touched, and says what is wrong, where, and what is allowed instead."""
