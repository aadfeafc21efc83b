"""The statistics that compare a port with the truth."""
