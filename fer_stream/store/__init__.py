"""Results of the live service: protocol, schemas and the Redis adapter."""
