-- ARGV: task, epoch, nonce, 'preempted' | 'crashed' | 'hopeless', cause. Answers {'queued', generation}, {state} or {'fenced'}.
local id, how, cause = ARGV[1], ARGV[4], ARGV[5]
if not is_held(id, ARGV[2], ARGV[3]) then
  -- The same attempt again, whose first answer was lost: what became of the task is said once more, as long as nobody else has claimed it.
  local found = redis.call('HMGET', task_key(id), 'state', 'epoch', 'nonce', 'generation')
  if found[2] ~= ARGV[2] or found[3] ~= ARGV[3] or found[1] == 'running' or found[1] == 'succeeded' then return {'fenced'} end
  if found[1] == 'queued' then return {'queued', found[4]} end
  return {found[1]}
end
if how == 'hopeless' then
  let_go(id)
  set_state(id, 'running', 'failed')
  redis.call('HSET', task_key(id), 'cause', cause)
  drop_checkpoint(id)
  event(id, 'failed', cause)
  return {'failed'}
elseif how == 'crashed' then
  return crashed(id, cause)
end
let_go(id)
event(id, 'released', cause)
return onward(id, 'running')
