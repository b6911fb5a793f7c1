-- Writes as the other scripts do. A server that takes no writes, or a right that they need and that
-- is gone, shows here. SET comes first: a full server refuses only the first write of a script, and
-- only one that needs memory.
local key = P .. 'probe'
redis.call('SET', key, now)
redis.call('DEL', key)
redis.call('HSET', key, 'at', now)
redis.call('DEL', key)
redis.call('ZADD', key, now, 'at')
redis.call('DEL', key)
return 'OK'
