-- ARGV: '1' to repair. What is kept about no single sweep: tickets, leases, sums over ended sweeps. Answers a sentence for each finding.
local repairs = ARGV[1] == '1'
local found = {}
local function find(what) found[#found + 1] = what end

local TYPES = {
  sweeps = 'zset', live = 'set', ended = 'zset', ['ended-counts'] = 'hash', outbox = 'zset', outstanding = 'zset', leases = 'zset',
  workers = 'zset', worker = 'hash', requests = 'hash', letters = 'list', ['letters-total'] = 'string', turned = 'string',
}
for name, expected in pairs(TYPES) do
  local is = redis.call('TYPE', P .. name).ok
  if is ~= expected and is ~= 'none' then
    find(name .. ' is a ' .. is .. ': expected a ' .. expected)
    if repairs then redis.call('DEL', P .. name) else return found end
  end
end

local function state_of(id) return redis.call('HMGET', task_key(id), 'state', 'generation') end
for _, name in ipairs({'outbox', 'outstanding'}) do
  for _, ticket in ipairs(redis.call('ZRANGE', P .. name, 0, -1)) do
    local id, generation = string.match(ticket, '^([%w%+%-%._]+/[%w%+%-%._]+) (%d+)$')
    local task = id and guarded(state_of, id) or {}
    if not id or task[1] ~= 'queued' or task[2] ~= generation then
      find(name .. ' holds a ticket that no task waits for: ' .. string.sub(ticket, 1, 100))
      if repairs then redis.call('ZREM', P .. name, ticket) end
    end
  end
end
for _, id in ipairs(redis.call('ZRANGE', P .. 'leases', 0, -1)) do
  local task = guarded(state_of, id) or {}
  if task[1] ~= 'running' then
    find('there is a lease of a task that does not run: ' .. string.sub(id, 1, 100))
    if repairs then redis.call('ZREM', P .. 'leases', id) end
  end
end
for _, sweep in ipairs(redis.call('ZRANGE', P .. 'sweeps', 0, -1)) do
  if redis.call('EXISTS', sweep_key(sweep)) == 0 then
    find('a sweep that does not exist is listed: ' .. string.sub(sweep, 1, 100))
    if repairs then redis.call('ZREM', P .. 'sweeps', sweep) end
  end
end
for _, sweep in ipairs(redis.call('SMEMBERS', P .. 'live')) do
  if redis.call('EXISTS', sweep_key(sweep)) == 0 then
    find('a sweep that does not exist is looked at: ' .. string.sub(sweep, 1, 100))
    if repairs then redis.call('SREM', P .. 'live', sweep) end
  end
end

local sums = {}
local function add(sweep)
  local counts = redis.call('HGETALL', P .. 'counts:' .. sweep)
  for i = 1, #counts, 2 do sums[counts[i]] = (sums[counts[i]] or 0) + counts[i + 1] end
end
for _, sweep in ipairs(redis.call('ZRANGE', P .. 'ended', 0, -1)) do guarded(add, sweep) end
local kept, differs = {}, false
local words = redis.call('HGETALL', P .. 'ended-counts')
for i = 1, #words, 2 do kept[words[i]] = words[i + 1] end
for state, sum in pairs(sums) do differs = differs or tonumber(kept[state] or '0') ~= sum end
for state, sum in pairs(kept) do differs = differs or tonumber(sum) ~= (sums[state] or 0) end
if differs then
  find('the sums over ended sweeps differ from their counts')
  if repairs then
    redis.call('DEL', P .. 'ended-counts')
    for state, sum in pairs(sums) do redis.call('HSET', P .. 'ended-counts', state, sum) end
  end
end
return found
