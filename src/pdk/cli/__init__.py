"""`pdk`: one module per command group; every command parses, calls, prints."""
