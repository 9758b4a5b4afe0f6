"""A service under random faults for as long as one likes, and what became of it."""
