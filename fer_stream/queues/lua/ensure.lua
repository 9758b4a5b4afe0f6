-- Makes the stream and its group where they are missing, also at the memory limit: workers must not fail on it.
taken()
