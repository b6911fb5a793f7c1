-- ARGV: sweep, place of the first task in the sweep, then id, body and '1' for the scores task or '0', of each task; a few hundred at most.
-- Tasks that are there already are left as they are. Answers the number of tasks that are new; -1 without the sweep, -2 once it is open.
-- Many tasks are created in a third of the time because of two things: what a task counts (generation, epoch, attempts, crashes, checkpoints) is 0 until it is
-- written, and bodies are in a hash of the sweep's, since a long value in its own hash makes that a large one.
local sweep, first = ARGV[1], tonumber(ARGV[2])
local stage = redis.call('HGET', sweep_key(sweep), 'stage')
if not stage then return -1 end
if stage ~= 'creating' then return -2 end
local places, bodies = {}, {}
for i = 3, #ARGV, 3 do
  local id = sweep .. '/' .. ARGV[i]
  places[#places + 1] = first + (i - 3) / 3
  places[#places + 1] = id
  bodies[#bodies + 1] = id
  bodies[#bodies + 1] = ARGV[i + 1]
end
if #places == 0 then return 0 end
local new = redis.call('ZADD', P .. 'tasks:' .. sweep, 'NX', unpack(places))
if new == 0 then return 0 end
local all_are_new, pending = new == #places / 2, {}
if all_are_new then redis.call('HSET', bodies_key(sweep), unpack(bodies)) end
for i = 3, #ARGV, 3 do
  local at = (i - 3) / 3 * 2 + 1
  local place, id = places[at], places[at + 1]
  if all_are_new or redis.call('HSETNX', bodies_key(sweep), id, ARGV[i + 1]) == 1 then
    redis.call('HSET', task_key(id), 'state', 'pending', 'order', place)
    if ARGV[i + 2] == '1' then
      redis.call('HSET', task_key(id), 'scores', 1)
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
