"""Images of the Earth, one for each key of a place: sources, bands, standardisation."""
