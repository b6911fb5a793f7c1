-- ARGV: age in ms, most tickets. Outstanding tickets of at least that age go back to the outbox with the same generation. Answers how many.
local again = 0

local function is_wanted(id, generation)
  local found = redis.call('HMGET', task_key(id), 'state', 'generation')
  return found[1] == 'queued' and found[2] == generation
end

for _, ticket in ipairs(redis.call('ZRANGEBYSCORE', P .. 'outstanding', '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[2])) do
  redis.call('ZREM', P .. 'outstanding', ticket)
  local id, generation = string.match(ticket, '^(%S+/%S+) (%d+)$')
  if id and guarded(is_wanted, id, generation) then
    redis.call('ZADD', P .. 'outbox', now, ticket)
    again = again + 1
  end
end
return again
