"""Every setting, once, with its unit and the reason for its default.

settings.py  FileSettings: `fer-stream run` and `analyze`, and the groups shared with the live service
sources.py   one camera of the live service
servers.py   its queue and its store
web.py       its page and HTTP API
live.py      LiveSettings: the whole service, and the effect of changing its settings
training.py  TrainSettings: `fer-stream train`
loader.py    settings from YAML
errors.py    errors with file, line, key and cure
"""
