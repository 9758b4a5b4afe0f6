"""Entry point of `python -m fer_stream.cli`."""

from fer_stream.cli import main

main()
