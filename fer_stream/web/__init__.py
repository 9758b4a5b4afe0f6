"""The live page and its HTTP API: everything that leaves the service towards people goes through here."""
