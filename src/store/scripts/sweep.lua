-- ARGV: sweeps; without any, those that are not known to have ended. Answers, for each sweep that is there: {id, '' or what is wrong with its record,
-- name, stage, order, created, priority, cap, attempts, ready, delayed, '1' if its tasks are begun as a search wants them,
-- '1' if its search has not said that it opens no more, then state and count of its tasks}.
local function summary(sweep)
  local of = redis.call('HMGET', sweep_key(sweep), 'name', 'stage', 'created', 'priority', 'cap', 'attempts', 'paced', 'task_limit')
  -- A key that expects this sweep, and nothing under it: what is left of it is not this script's to judge.
  if not of[2] then return nil end
  local line = {sweep, '', of[1], of[2], order_of(sweep), of[3], of[4], of[5], of[6],
    tostring(redis.call('ZCARD', P .. 'ready:' .. sweep)), tostring(redis.call('ZCARD', P .. 'delayed:' .. sweep)), of[7] or '0',
    tonumber(of[8] or '0') > 0 and '1' or '0'}
  for i = 1, 13 do
    if not line[i] then error('a field of the sweep is missing', 0) end
  end
  for _, word in ipairs(redis.call('HGETALL', P .. 'counts:' .. sweep)) do line[#line + 1] = word end
  return line
end

local sweeps, answer = ARGV, {}
if #ARGV == 0 then sweeps = redis.call('SMEMBERS', P .. 'live') end
for _, sweep in ipairs(sweeps) do
  local line, fault = guarded(summary, sweep)
  if fault then line = {sweep, fault} end
  if line then answer[#answer + 1] = line end
end
return answer
