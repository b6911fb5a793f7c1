-- Forgets workers that were not heard of in time. Answers {worker, what it said} of the others, flat, by name.
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', now)) do
  redis.call('ZREM', P .. 'workers', gone)
  redis.call('HDEL', P .. 'worker', gone)
end
local names = redis.call('ZRANGE', P .. 'workers', 0, -1)
table.sort(names)
local answer = {}
for _, name in ipairs(names) do
  answer[#answer + 1] = {name, redis.call('HGET', P .. 'worker', name) or ''}
end
return answer
