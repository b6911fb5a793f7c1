-- ARGV: sweeps. Those whose tasks are all final, and whose searches open no more, are not looked at any more, until their tasks are retried. Answers how many.
local function retire(sweep)
  local stage = redis.call('HGET', sweep_key(sweep), 'stage')
  if not stage then return redis.call('SREM', P .. 'live', sweep) end
  local counts = redis.call('HGETALL', P .. 'counts:' .. sweep)
  if stage == 'creating' or takes_tasks(sweep) then return 0 end
  for i = 1, #counts, 2 do
    local count = tonumber(counts[i + 1])
    if count < 0 or count > 0 and not FINAL[counts[i]] then return 0 end
  end
  if redis.call('SREM', P .. 'live', sweep) == 0 then return 0 end
  redis.call('ZADD', P .. 'ended', now, sweep)
  for i = 1, #counts, 2 do redis.call('HINCRBY', P .. 'ended-counts', counts[i], counts[i + 1]) end
  return 1
end

local retired = 0
for _, sweep in ipairs(ARGV) do retired = retired + (guarded(retire, sweep) or 0) end
return retired
