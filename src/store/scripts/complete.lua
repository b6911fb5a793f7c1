-- ARGV: task, epoch, nonce, result as JSON, coefficients, and, if values of units are kept: those, the task's cost ('' for a baseline), and how many
-- tasks of the sweep keep theirs besides baselines. Written once. Answers 'done' or 'fenced'.
local id = ARGV[1]
local found = redis.call('HMGET', task_key(id), 'state', 'epoch', 'nonce')
-- The same attempt again, whose first answer was lost.
if found[1] == 'succeeded' and found[2] == ARGV[2] and found[3] == ARGV[3] then return 'done' end
if not is_held(id, ARGV[2], ARGV[3]) then return 'fenced' end
redis.call('SET', P .. 'result:' .. id, ARGV[4])
if ARGV[5] ~= '' then redis.call('SET', P .. 'coefficients:' .. id, ARGV[5]) end
if ARGV[6] then
  local units, costs, most = P .. 'units:' .. sweep_of(id), P .. 'unit-costs:' .. sweep_of(id), tonumber(ARGV[8])
  redis.call('HSET', units, id, ARGV[6])
  if ARGV[7] ~= '' then redis.call('ZADD', costs, ARGV[7], id) end
  -- Equal costs are in the order of names.
  for _, worst in ipairs(redis.call('ZRANGE', costs, most, -1)) do
    redis.call('HDEL', units, worst)
    redis.call('ZREM', costs, worst)
  end
end
drop_checkpoint(id)
let_go(id)
step(id, 'complete')
event(id, 'succeeded')
if redis.call('HGET', task_key(id), 'scores') == '1' then
  redis.call('HSET', sweep_key(sweep_of(id)), 'manifest', ARGV[4], 'stage', 'ready')
end
return 'done'
