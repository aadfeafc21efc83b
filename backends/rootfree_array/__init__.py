"""The plain adapter: rootfree's methods on any namespace of the Python array API standard."""
