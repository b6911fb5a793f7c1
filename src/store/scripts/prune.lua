-- ARGV: task, rung of each. Those that wait at that rung, in a sweep that is to go on, are given up. Answers how many.
local pruned = 0
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  local rungs = rungs_of(id)
  if #rungs - 1 == tonumber(ARGV[i + 1]) and redis.call('HGET', task_key(id), 'state') == 'waiting'
    and order_of(sweep_of(id)) == 'continue' then
    step(id, 'prune')
    drop_checkpoint(id)
    event(id, 'pruned', at_rung(rungs))
    pruned = pruned + 1
  end
end
return pruned
