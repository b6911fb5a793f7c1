-- Writes as the other scripts do. A server that takes no writes, or a right that they need and that
-- is gone, shows here.
local key = P .. 'probe'
redis.call('DEL', key)
redis.call('HSET', key, 'at', now)
redis.call('DEL', key)
redis.call('ZADD', key, now, 'at')
redis.call('DEL', key)
redis.call('SET', key, now)
return 'OK'
