-- Makes the stream and its group where they are missing, also at the memory limit: workers must not fail on it.
-- ARGV 2: ms after which a stream that nobody puts anything on goes again.
taken()
redis.call('PEXPIRE', crops, ARGV[2], 'NX')
