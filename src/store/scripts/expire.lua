-- ARGV: most tasks, longest time in ms between two calls of this. Takes tasks from workers whose lease has run out.
-- Where nobody could write for longer than that (the server was full or away, or no scheduler ran), workers could not renew either: leases that ran
-- out meanwhile are prolonged once. Answers {task, state or 'unreadable', generation, '' or what is wrong} of each, flat.
local answer = {}
local last = tonumber(redis.call('GET', P .. 'turned') or '0')
-- First of all: on a server that takes no writes, nothing else is done.
redis.call('SET', P .. 'turned', now)
local was_away = last > 0 and now - last > tonumber(ARGV[2])

local function expire(id)
  local found = redis.call('HMGET', task_key(id), 'state', 'worker', 'lease')
  if found[1] ~= 'running' then
    redis.call('ZREM', P .. 'leases', id)
    return {}
  end
  if was_away and tonumber(redis.call('ZSCORE', P .. 'leases', id)) > last then
    redis.call('ZADD', P .. 'leases', now + tonumber(found[3] or '30000'), id)
    return {}
  end
  return crashed(id, 'lost its worker ' .. (found[2] or '') .. ': the lease ran out')
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local became, fault = guarded(expire, id)
  if fault then
    -- It is looked at again later, and is in nobody's way until then.
    redis.call('ZADD', P .. 'leases', now + 60000, id)
    became = {'unreadable', fault}
  end
  if became[1] then
    answer[#answer + 1] = id
    answer[#answer + 1] = became[1]
    answer[#answer + 1] = became[2] or ''
  end
end
return answer
