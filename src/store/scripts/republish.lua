-- ARGV: age in ms, most tickets. Outstanding tickets of at least that age go back to the outbox with the same generation. Answers how many.
local again = 0
local old = redis.call('ZRANGEBYSCORE', P .. 'outstanding', '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[2])
for _, ticket in ipairs(old) do
  redis.call('ZREM', P .. 'outstanding', ticket)
  local id, generation = string.match(ticket, '^(%S+) (%d+)$')
  local found = redis.call('HMGET', task_key(id), 'state', 'generation')
  if found[1] == 'queued' and found[2] == generation then
    redis.call('ZADD', P .. 'outbox', now, ticket)
    again = again + 1
  end
end
return again
