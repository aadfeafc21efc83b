"""The built-in ports, written through the same door as anyone else's."""
