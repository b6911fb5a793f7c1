-- ARGV: task, rung of each. Those that wait at that rung, in a sweep that is to go on, become runnable, and wait to be chosen for a ticket. Answers how many.
local promoted = 0
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  local rungs = rungs_of(id)
  if #rungs - 1 == tonumber(ARGV[i + 1]) and redis.call('HGET', task_key(id), 'state') == 'waiting'
    and order_of(sweep_of(id)) == 'continue' then
    event(id, 'promoted', at_rung(rungs))
    enqueue(id, 'enqueue', false)
    promoted = promoted + 1
  end
end
return promoted
