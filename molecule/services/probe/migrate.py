"""Migrates the probe's database before a new version takes over."""

import os

import psycopg

with psycopg.connect(os.environ["DATABASE_URL"]) as database:
    database.execute("CREATE TABLE IF NOT EXISTS guest (name text)")
    database.execute("CREATE TABLE IF NOT EXISTS migration (at timestamptz DEFAULT now())")
    database.execute("INSERT INTO migration DEFAULT VALUES")
print("the database is as this version needs it")
