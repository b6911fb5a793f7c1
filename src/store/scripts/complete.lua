-- ARGV: task, epoch, nonce, result as JSON, coefficients. Written once. Answers 'done' or 'fenced'.
local id = ARGV[1]
local found = redis.call('HMGET', task_key(id), 'state', 'epoch', 'nonce')
-- The same attempt again, whose first answer was lost.
if found[1] == 'succeeded' and found[2] == ARGV[2] and found[3] == ARGV[3] then return 'done' end
if not is_held(id, ARGV[2], ARGV[3]) then return 'fenced' end
redis.call('SET', P .. 'result:' .. id, ARGV[4])
if ARGV[5] ~= '' then redis.call('SET', P .. 'coefficients:' .. id, ARGV[5]) end
drop_checkpoint(id)
let_go(id)
step(id, 'complete')
event(id, 'succeeded')
if redis.call('HGET', task_key(id), 'scores') == '1' then
  redis.call('HSET', sweep_key(sweep_of(id)), 'manifest', ARGV[4], 'stage', 'ready')
end
return 'done'
