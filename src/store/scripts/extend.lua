-- ARGV: sweep, place of the first task in the sweep, then id and body of each task; a few hundred
-- at most. Adds pending tasks to a sweep whose search may open more. All of them are added, or
-- none. Answers {'added', number of new tasks}, {'taken', first place where the task is another},
-- {'full', most tasks of the sweep}, {'closed'} or {'unknown'}.
local sweep, first = ARGV[1], tonumber(ARGV[2])
local limit = redis.call('HGET', sweep_key(sweep), 'task_limit')
if redis.call('EXISTS', sweep_key(sweep)) == 0 then return {'unknown'} end
local tasks = P .. 'tasks:' .. sweep
local last = redis.call('ZRANGE', tasks, -1, -1, 'WITHSCORES')[2]
local next_place = last and last + 1 or 0
local new, is_new = {}, {}
for i = 3, #ARGV, 2 do
  local place, id, body = first + (i - 3) / 2, sweep .. '/' .. ARGV[i], ARGV[i + 1]
  if place < next_place then
    -- An earlier call: the same task once more changes nothing.
    local there = redis.call('ZRANGEBYSCORE', tasks, place, place)[1]
    if there ~= id or redis.call('HGET', bodies_key(sweep), id) ~= body then return {'taken', tostring(place)} end
  else
    local is_used = is_new[id] or redis.call('ZSCORE', tasks, id)
    if is_used or place ~= next_place + #new then return {'taken', tostring(place)} end
    new[#new + 1], is_new[id] = {place, id, body}, true
  end
end
if #new == 0 then return {'added', '0'} end
if not takes_tasks(sweep) then return {'closed'} end
if redis.call('ZCARD', tasks) + #new > tonumber(limit) then return {'full', limit} end
for _, task in ipairs(new) do
  local place, id, body = task[1], task[2], task[3]
  redis.call('ZADD', tasks, place, id)
  redis.call('HSET', bodies_key(sweep), id, body)
  redis.call('HSET', task_key(id), 'state', 'pending', 'order', place)
  redis.call('ZADD', P .. 'pending:' .. sweep, place, id)
end
redis.call('HINCRBY', P .. 'counts:' .. sweep, 'pending', #new)
return {'added', tostring(#new)}
