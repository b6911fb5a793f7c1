-- ARGV: age in ms, most sweeps. Those that ended at least so long ago, the first ones first.
return redis.call('ZRANGEBYSCORE', P .. 'ended', '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[2])
