-- ARGV: task, generation, most. A ticket came back undeliverable. It matters only if the task still waits for it: then it is published again, and the
-- task fails after so many. Answers 'again', 'failed' or 'worthless'.
local id, generation, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
local found = redis.call('HMGET', task_key(id), 'state', 'generation', 'dead_generation')
if found[1] ~= 'queued' or found[2] ~= generation then return 'worthless' end
if found[3] ~= generation then redis.call('HSET', task_key(id), 'dead_generation', generation, 'dead', 0) end
if redis.call('HINCRBY', task_key(id), 'dead', 1) >= most then
  local cause = 'its ticket was dead-lettered ' .. ARGV[3] .. ' times'
  drop_ticket(id, generation)
  step(id, 'fail')
  redis.call('HSET', task_key(id), 'cause', cause)
  drop_checkpoint(id)
  event(id, 'failed', cause)
  return 'failed'
end
-- It may wait to be chosen, if a claim met its sweep's cap: then it does so no longer.
drop_ticket(id, generation)
redis.call('ZADD', P .. 'outbox', now, member(id, generation))
return 'again'
