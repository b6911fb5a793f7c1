-- ARGV: sweep, place of the first task in the sweep, then id, body and '1' for the scores task or '0', of each task; a few hundred at most.
-- Tasks that are there already are left as they are. Answers the number of tasks that are new; -1 without the sweep, -2 once it is open.
-- What a task counts (generation, epoch, attempts, crashes, checkpoints) is 0 until it is written: a sweep of many tasks is created in half the time for that.
local sweep, first = ARGV[1], tonumber(ARGV[2])
local stage = redis.call('HGET', sweep_key(sweep), 'stage')
if not stage then return -1 end
if stage ~= 'creating' then return -2 end
local places = {}
for i = 3, #ARGV, 3 do
  places[#places + 1] = first + (i - 3) / 3
  places[#places + 1] = sweep .. '/' .. ARGV[i]
end
if #places == 0 then return 0 end
local new = redis.call('ZADD', P .. 'tasks:' .. sweep, 'NX', unpack(places))
if new == 0 then return 0 end
local all_are_new, pending = new == #places / 2, {}
for i = 3, #ARGV, 3 do
  local place, id = places[(i - 3) / 3 * 2 + 1], places[(i - 3) / 3 * 2 + 2]
  local key = task_key(id)
  if all_are_new or redis.call('HSETNX', key, 'body', ARGV[i + 1]) == 1 then
    redis.call('HSET', key, 'body', ARGV[i + 1], 'state', 'pending', 'order', place)
    if ARGV[i + 2] == '1' then
      redis.call('HSET', key, 'scores', 1)
      redis.call('HSET', sweep_key(sweep), 'scores', id)
    else
      pending[#pending + 1] = place
      pending[#pending + 1] = id
    end
  end
end
if #pending > 0 then redis.call('ZADD', P .. 'pending:' .. sweep, unpack(pending)) end
redis.call('HINCRBY', P .. 'counts:' .. sweep, 'pending', new)
return new
