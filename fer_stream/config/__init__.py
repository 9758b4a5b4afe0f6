"""Every setting, once, with its unit and the reason for its default.

settings.py  FileSettings: `fer-stream run` and `analyze`, and the groups shared with the live service
live.py      LiveSettings: the live service, its sources, and the effect of changing its settings
servers.py   queue, store, page and HTTP API of the live service
training.py  TrainSettings: `fer-stream train`
loader.py    settings from YAML
errors.py    errors with file, line, key and cure
"""
