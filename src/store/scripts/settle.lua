-- ARGV: sweep, place to begin at, most tasks. Brings tasks that do not run in line with what the sweep's owner wants: cancelled ones end,
-- those of a paused sweep are set aside, set-aside ones of a resumed sweep can be worked on again.
-- Answers {tasks changed, place to go on at or -1}.
local sweep, begin, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local order, changed = order_of(sweep), 0
local ids = redis.call('ZRANGE', P .. 'tasks:' .. sweep, begin, begin + most - 1)
-- A failed scores task leaves nothing to compute with.
local scores = redis.call('HGET', sweep_key(sweep), 'scores')
local is_hopeless = scores and redis.call('HGET', task_key(scores), 'state') == 'failed'
for _, id in ipairs(ids) do
  local found = redis.call('HMGET', task_key(id), 'state', 'generation')
  local state, generation = found[1], found[2] or '0'
  local idle = state == 'pending' or state == 'queued' or state == 'waiting' or state == 'paused'
  if idle and (order == 'cancel' or is_hopeless) then
    drop_ticket(id, generation)
    redis.call('ZREM', P .. 'pending:' .. sweep, id)
    step(id, 'cancel')
    drop_checkpoint(id)
    event(id, 'cancelled', is_hopeless and 'the scores task failed' or nil)
    changed = changed + 1
  elseif state == 'queued' and order == 'pause' then
    drop_ticket(id, generation)
    step(id, 'pause')
    event(id, 'paused')
    changed = changed + 1
  elseif state == 'paused' and order == 'continue' then
    enqueue(id, 'enqueue', false)
    event(id, 'resumed')
    changed = changed + 1
  end
end
return {changed, #ids == most and begin + most or -1}
