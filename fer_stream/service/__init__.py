"""The live service: what each of its processes does, and what starts, watches and stops them."""
