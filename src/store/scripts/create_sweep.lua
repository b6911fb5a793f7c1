-- ARGV: sweep, request key or '', name, spec, attempts, cap, priority, max_seconds, '1' if its tasks are begun as a search wants them, first wait in ms after a crash,
-- most tasks if its search may open more once the sweep is open, else 0. Answers {id, 'new' | 'known'}.
-- A request key that is known answers with the sweep it made; a sweep that is known is left as it is.
local sweep, request = ARGV[1], ARGV[2]
if request ~= '' then
  local known = redis.call('HGET', P .. 'requests', request)
  if known then return {known, 'known'} end
end
if redis.call('EXISTS', sweep_key(sweep)) == 1 then return {sweep, 'known'} end
local max_seconds = tonumber(ARGV[8])
redis.call('HSET', sweep_key(sweep), 'name', ARGV[3], 'spec', ARGV[4], 'attempts', ARGV[5], 'cap', ARGV[6],
  'priority', ARGV[7], 'created', now, 'closes', max_seconds > 0 and now + max_seconds * 1000 or 0,
  'cancelled', '0', 'paused', '0', 'stage', 'creating', 'request', request, 'paced', ARGV[9], 'backoff', ARGV[10])
if tonumber(ARGV[11]) > 0 then redis.call('HSET', sweep_key(sweep), 'task_limit', ARGV[11]) end
redis.call('ZADD', P .. 'sweeps', now, sweep)
redis.call('SADD', P .. 'live', sweep)
if request ~= '' then redis.call('HSET', P .. 'requests', request, sweep) end
return {sweep, 'new'}
