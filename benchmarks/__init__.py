"""Measurements: nanoseconds an event by operator, whole replays beside River, start-up, memory.

`python -m benchmarks` prints the tables, writes them as JSON, and puts them into README.md.
Everything runs on one core, and what is compared runs by turns in one process.
"""
