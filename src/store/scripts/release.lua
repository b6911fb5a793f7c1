-- ARGV: task, epoch, nonce, 'preempted' | 'crashed' | 'hopeless', cause. Answers {'queued', generation}, {state} or {'fenced'}.
local id, how, cause = ARGV[1], ARGV[4], ARGV[5]
if not is_held(id, ARGV[2], ARGV[3]) then return once_more(id, ARGV[2], ARGV[3]) end
if how == 'hopeless' then
  let_go(id)
  step(id, 'fail')
  redis.call('HSET', task_key(id), 'cause', cause)
  drop_checkpoint(id)
  event(id, 'failed', cause)
  return {'failed'}
elseif how == 'crashed' then
  return crashed(id, cause)
end
let_go(id)
event(id, 'released', cause)
return onward(id)
