-- ARGV: worker, lifetime in ms, what it says about itself as JSON.
redis.call('ZADD', P .. 'workers', now + ARGV[2], ARGV[1])
redis.call('HSET', P .. 'worker', ARGV[1], ARGV[3])
