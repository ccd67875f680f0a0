"""Files <-> parameters."""
