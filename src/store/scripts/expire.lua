-- ARGV: most tasks. Takes tasks from workers whose lease has run out. Answers {id, state, generation or ''} of each, flat.
local answer = {}
local overdue = redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(overdue) do
  if redis.call('HGET', task_key(id), 'state') == 'running' then
    local worker = redis.call('HGET', task_key(id), 'worker') or ''
    local became = crashed(id, 'lost its worker ' .. worker .. ': the lease ran out')
    answer[#answer + 1] = id
    answer[#answer + 1] = became[1]
    answer[#answer + 1] = became[2] or ''
  else
    redis.call('ZREM', P .. 'leases', id)
  end
end
return answer
