"""Tests of the rehearsal that need neither Docker nor the network."""
