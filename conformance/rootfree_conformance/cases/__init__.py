"""The inputs: tables, how they become cases, and the numbers that are drawn for them."""
