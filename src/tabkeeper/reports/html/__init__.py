"""The report as one HTML file: `page` lays it out, `tables` and `plots` make what stands on it."""
