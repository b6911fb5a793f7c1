-- ARGV: id, generation of each ticket that the broker has confirmed. From the outbox to outstanding, if the task still waits for it.
local moved = 0

local function confirm(id, generation)
  if redis.call('ZREM', P .. 'outbox', member(id, generation)) == 0 then return 0 end
  local found = redis.call('HMGET', task_key(id), 'state', 'generation')
  if found[1] ~= 'queued' or found[2] ~= generation then return 0 end
  redis.call('ZADD', P .. 'outstanding', now, member(id, generation))
  return 1
end

for i = 1, #ARGV, 2 do moved = moved + (guarded(confirm, ARGV[i], ARGV[i + 1]) or 0) end
return moved
