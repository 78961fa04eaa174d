"""The sites that work is done on: what they bear, which proxies they refuse."""
