-- ARGV: task, epoch, nonce, rung from 0, score there, what the task has to show as JSON. A worker lets go of a task at a rung, its checkpoint kept.
-- Answers {'waiting'}, or as release. A paused sweep's tasks wait all the same: nobody is promoted as long as it is paused.
local id, rung, score = ARGV[1], tonumber(ARGV[4]), ARGV[5]
if not is_held(id, ARGV[2], ARGV[3]) then return once_more(id, ARGV[2], ARGV[3]) end
local rungs = rungs_of(id)
-- A rung is reached once.
if #rungs == rung then
  rungs[#rungs + 1] = score
  redis.call('HSET', task_key(id), 'rungs', table.concat(rungs, '\n'))
end
redis.call('HSET', task_key(id), 'standing', ARGV[6])
let_go(id)
if order_of(sweep_of(id)) == 'cancel' then return onward(id) end
step(id, 'wait')
event(id, 'waiting', at_rung(rungs))
return {'waiting'}
