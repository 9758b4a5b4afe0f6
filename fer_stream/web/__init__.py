"""The live web page and the HTTP API of the service."""
