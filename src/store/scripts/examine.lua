-- ARGV: sweep, '1' to repair. Compares what is kept about a sweep with its tasks' own states, and mends what differs. The states of tasks win; a task
-- whose own record is damaged has failed. Holds (epoch and nonce) are never changed, so the worker of a task goes on. Answers a sentence for each finding.
local sweep, repairs = ARGV[1], ARGV[2] == '1'
local found = {}
local function find(what) found[#found + 1] = what end
local function kind(key) return redis.call('TYPE', key).ok end

local own = kind(sweep_key(sweep))
if own ~= 'hash' then
  find(own == 'none' and 'there is no such sweep' or 'its record is a ' .. own .. ', not a hash: it can only be deleted')
  return found
end

-- Fields that others rely on, with what stands for them where they are lost.
local has_manifest = redis.call('HEXISTS', sweep_key(sweep), 'manifest') == 1
local NUMBERS = {attempts = '3', cap = '0', priority = '0', created = tostring(now), closes = '0'}
if redis.call('HEXISTS', sweep_key(sweep), 'task_limit') == 1 then NUMBERS.task_limit = '0' end
local WORDS = {
  cancelled = {'0', '1'}, paused = {'0', '1'}, stage = {has_manifest and 'ready' or 'scoring', 'creating', 'scoring', 'ready'},
}
local function mend(field, value, instead)
  find('the field ' .. field .. ' is ' .. (value or 'missing') .. ': expected ' .. instead)
  if repairs then redis.call('HSET', sweep_key(sweep), field, instead) end
end
for field, instead in pairs(NUMBERS) do
  local value = redis.call('HGET', sweep_key(sweep), field)
  local shape = field == 'priority' and '^%-?%d+$' or '^%d+$'
  if not value or not string.match(value, shape) then mend(field, value, instead) end
end
for field, words in pairs(WORDS) do
  local value, is_known = redis.call('HGET', sweep_key(sweep), field), false
  for _, word in ipairs(words) do is_known = is_known or value == word end
  if not is_known then mend(field, value, words[1]) end
end
if not redis.call('HGET', sweep_key(sweep), 'name') then mend('name', nil, sweep) end
if not redis.call('HGET', sweep_key(sweep), 'spec') then find('its specification is lost: it can only be deleted') end

-- What is kept beside the tasks, by type. What has another type is made anew below.
for name, expected in pairs({tasks = 'zset', pending = 'zset', ready = 'zset', delayed = 'zset', running = 'set', counts = 'hash', bodies = 'hash'}) do
  local key = P .. name .. ':' .. sweep
  local is = kind(key)
  if is ~= expected and is ~= 'none' then
    find(name .. ' is a ' .. is .. ': expected a ' .. expected)
    if repairs then redis.call('DEL', key) else return found end
  end
end

local counts, is_open = {}, redis.call('HGET', sweep_key(sweep), 'stage') ~= 'creating'
local places = redis.call('ZRANGE', P .. 'tasks:' .. sweep, 0, -1, 'WITHSCORES')
local scores
for i = 1, #places, 2 do
  local id, place = places[i], places[i + 1]
  local is = kind(task_key(id))
  local task = is == 'hash' and redis.call('HMGET', task_key(id), 'state', 'order', 'scores', 'generation', 'epoch', 'attempts', 'crashes', 'sequence', 'reached')
    or {}
  local state, fault = task[1] or nil, nil
  if is ~= 'hash' then
    fault = 'its record is ' .. (is == 'none' and 'lost' or 'a ' .. is .. ', not a hash')
  elseif not AFTER[state] then
    fault = 'its state is ' .. (state or 'missing')
  end
  for field = 4, 9 do
    if task[field] and not string.match(task[field], '^%d+$') then fault = fault or 'one of its numbers is ' .. task[field] end
  end
  if fault then
    find('task ' .. id .. ': ' .. fault .. ': the task fails')
    if repairs then
      if is ~= 'hash' then redis.call('DEL', task_key(id)) end
      redis.call('HDEL', task_key(id), 'generation', 'epoch', 'attempts', 'crashes', 'sequence', 'reached', 'nonce', 'worker')
      redis.call('HSET', task_key(id), 'state', 'failed', 'order', place, 'cause', 'its record was damaged: ' .. fault)
      redis.call('DEL', P .. 'checkpoint:' .. id)
      redis.call('ZREM', P .. 'leases', id)
    end
    state = 'failed'
  end
  if task[3] == '1' then scores = id end
  if not fault and task[2] ~= place then
    find('task ' .. id .. ': its place is ' .. (task[2] or 'missing') .. ': expected ' .. place)
    if repairs then redis.call('HSET', task_key(id), 'order', place) end
  end
  local generation = task[4] or '0'
  local is_pending = redis.call('ZSCORE', P .. 'pending:' .. sweep, id)
  local waits = redis.call('ZSCORE', P .. 'ready:' .. sweep, id) or redis.call('ZSCORE', P .. 'delayed:' .. sweep, id)
  local has_ticket = redis.call('ZSCORE', P .. 'outbox', member(id, generation)) or redis.call('ZSCORE', P .. 'outstanding', member(id, generation))
  local runs = redis.call('SISMEMBER', P .. 'running:' .. sweep, id) == 1
  local lease = redis.call('ZSCORE', P .. 'leases', id)
  if state == 'queued' and not waits and not has_ticket then
    find('task ' .. id .. ' is queued, but has no ticket and does not wait for one')
    if repairs then redis.call('ZADD', P .. 'ready:' .. sweep, place, id) end
  elseif state ~= 'queued' and waits then
    find('task ' .. id .. ' is ' .. state .. ', but waits for a ticket')
    if repairs then
      redis.call('ZREM', P .. 'ready:' .. sweep, id)
      redis.call('ZREM', P .. 'delayed:' .. sweep, id)
    end
  end
  if state == 'pending' and task[3] == '1' then
    if is_open then
      find('the scores task is pending, but the sweep is open')
      if repairs then
        enqueue(id, 'enqueue', true)
        state = 'queued'
      end
    end
  elseif state == 'pending' and not is_pending then
    find('task ' .. id .. ' is pending, but missing from the list of released tasks')
    if repairs then redis.call('ZADD', P .. 'pending:' .. sweep, place, id) end
  end
  if state == 'running' and not (runs and lease) then
    find('task ' .. id .. ' is running, but has no lease or is not counted')
    if repairs then
      redis.call('SADD', P .. 'running:' .. sweep, id)
      if not lease then redis.call('ZADD', P .. 'leases', now + tonumber(redis.call('HGET', task_key(id), 'lease') or '30000'), id) end
    end
  elseif state ~= 'running' and (runs or lease) then
    find('task ' .. id .. ' is ' .. state .. ', but is listed as running')
    if repairs then let_go(id) end
  end
  counts[state] = (counts[state] or 0) + 1
end
if not scores then
  find('its scores task is lost: it can only be deleted')
elseif redis.call('HGET', sweep_key(sweep), 'scores') ~= scores then
  mend('scores', redis.call('HGET', sweep_key(sweep), 'scores'), scores)
end

-- Counts, last of all: they follow from the states.
local kept, differs = {}, false
local words = redis.call('HGETALL', P .. 'counts:' .. sweep)
for i = 1, #words, 2 do kept[words[i]] = words[i + 1] end
for state, count in pairs(counts) do differs = differs or tonumber(kept[state] or '0') ~= count end
for state, count in pairs(kept) do differs = differs or tonumber(count) ~= (counts[state] or 0) end
local was_ended = redis.call('ZSCORE', P .. 'ended', sweep)
if differs then
  local told = {}
  for state, count in pairs(counts) do told[#told + 1] = count .. ' ' .. state .. ' (kept: ' .. (kept[state] or '0') .. ')' end
  for state, count in pairs(kept) do
    if not counts[state] and count ~= '0' then told[#told + 1] = '0 ' .. state .. ' (kept: ' .. count .. ')' end
  end
  table.sort(told)
  find('its counts differ from its tasks: ' .. table.concat(told, ', '))
  if repairs then
    -- Sums over ended sweeps hold the old counts: they are made anew by examine_pool.
    if was_ended then redis.call('ZREM', P .. 'ended', sweep) end
    redis.call('DEL', P .. 'counts:' .. sweep)
    for state, count in pairs(counts) do redis.call('HSET', P .. 'counts:' .. sweep, state, count) end
    redis.call('SADD', P .. 'live', sweep)
  end
end
local is_final = is_open and not takes_tasks(sweep)
for state in pairs(counts) do is_final = is_final and FINAL[state] end
if not is_final and redis.call('SISMEMBER', P .. 'live', sweep) == 0 then
  find('it has unfinished tasks, but no scheduler works on it')
  if repairs then revive(sweep) end
end
if not redis.call('ZSCORE', P .. 'sweeps', sweep) then
  find('it is missing from the list of sweeps')
  if repairs then redis.call('ZADD', P .. 'sweeps', redis.call('HGET', sweep_key(sweep), 'created') or now, sweep) end
end
return found
