-- What the scripts share. KEYS[1] is the installation's prefix; it holds a hash tag, so that all keys are in one slot.
-- Keys of one task are made from its name here: Redis Cluster, which wants them stated, is not supported.
local P = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function task_key(id) return P .. 'task:' .. id end
local function sweep_key(sweep) return P .. 'sweep:' .. sweep end
local function bodies_key(sweep) return P .. 'bodies:' .. sweep end
local function sweep_of(id) return string.match(id, '^[^/]+') end
local function member(id, generation) return id .. ' ' .. generation end

local function event(id, what, detail)
  redis.call('RPUSH', P .. 'events:' .. id, cjson.encode({at = now, what = what, detail = detail}))
  redis.call('LTRIM', P .. 'events:' .. id, -200, -1)
end

-- Moves a task along the table of states, which is put before this file: `AFTER[state][event]`, and
-- `FINAL[state]`. The state that a task leaves is read, never assumed: so the counts cannot drift
-- from the states. Scripts look first whether an event can happen; one that cannot ends the script.
local function step(id, what)
  local counts = P .. 'counts:' .. sweep_of(id)
  local from = redis.call('HGET', task_key(id), 'state')
  local to = AFTER[from] and AFTER[from][what]
  if not to then error('task ' .. id .. ' is ' .. (from or 'in no state') .. ': it has no event ' .. what, 0) end
  redis.call('HINCRBY', counts, from, -1)
  redis.call('HSET', task_key(id), 'state', to)
  redis.call('HINCRBY', counts, to, 1)
end

-- Calls `act` for one of many records. One that cannot be read must not stop the others: the answer is then nil and what is wrong.
-- A fault of the server is none of a record: it ends the script, as without this.
local function guarded(act, ...)
  local is_done, answer = pcall(act, ...)
  if is_done then return answer end
  local fault = type(answer) == 'table' and (answer.err or answer[1]) or tostring(answer)
  for _, sign in ipairs({"can't run this command", 'ACL failure', 'NOPERM', 'OOM ', 'MISCONF', 'READONLY', 'NOREPLICAS'}) do
    if string.find(fault, sign, 1, true) then error(answer, 0) end
  end
  return nil, fault
end

-- A sweep whose tasks are all final is not in `live` but in `ended`, with the time of its end. Its counts are part of `ended-counts`.
local function leave_ended(sweep)
  if redis.call('ZREM', P .. 'ended', sweep) == 0 then return end
  local counts = redis.call('HGETALL', P .. 'counts:' .. sweep)
  -- 0 minus: the negative of 0 would be "-0", which is no integer to the server.
  for i = 1, #counts, 2 do redis.call('HINCRBY', P .. 'ended-counts', counts[i], 0 - counts[i + 1]) end
end

-- Tasks of an ended sweep are about to be worked on again.
local function revive(sweep)
  leave_ended(sweep)
  redis.call('SADD', P .. 'live', sweep)
end

-- The task's ticket, wherever it is, is worth nothing from now on.
local function drop_ticket(id, generation)
  redis.call('ZREM', P .. 'outbox', member(id, generation))
  redis.call('ZREM', P .. 'outstanding', member(id, generation))
  redis.call('ZREM', P .. 'ready:' .. sweep_of(id), id)
  redis.call('ZREM', P .. 'delayed:' .. sweep_of(id), id)
end

-- Makes a task runnable under a new generation, by this event: with a ticket in the outbox, or waiting until it is chosen for one.
local function enqueue(id, what, with_ticket)
  local generation = redis.call('HINCRBY', task_key(id), 'generation', 1)
  step(id, what)
  if with_ticket then
    redis.call('ZADD', P .. 'outbox', now, member(id, generation))
  else
    redis.call('ZADD', P .. 'ready:' .. sweep_of(id), redis.call('HGET', task_key(id), 'order'), id)
  end
  return generation
end

-- Milliseconds before the next attempt, by the number of crashes without progress: the sweep's own first wait, doubled by each further crash, at most
-- 60 s. As `Backoff::wait`.
local function backoff(id, crashes)
  local first = tonumber(redis.call('HGET', sweep_key(sweep_of(id)), 'backoff') or '1000')
  return math.min(60000, first * 2 ^ (crashes - 1))
end

-- Makes a crashed task runnable under a new generation. It gets no ticket before its time.
local function delay(id, crashes)
  local generation = redis.call('HINCRBY', task_key(id), 'generation', 1)
  step(id, 'requeue')
  redis.call('ZADD', P .. 'delayed:' .. sweep_of(id), now + backoff(id, crashes), id)
  return generation
end

-- Milliseconds until a task's next attempt may begin; 0 for now.
local function wait_of(id)
  local at = redis.call('ZSCORE', P .. 'delayed:' .. sweep_of(id), id)
  return at and math.max(0, at - now) or 0
end

-- Ends the hold on a task that runs.
local function let_go(id)
  redis.call('ZREM', P .. 'leases', id)
  redis.call('SREM', P .. 'running:' .. sweep_of(id), id)
  redis.call('HDEL', task_key(id), 'worker')
end

local function drop_checkpoint(id)
  redis.call('DEL', P .. 'checkpoint:' .. id)
end

-- Whether the sweep's budget of time is used up.
local function is_closed(sweep)
  local closes = tonumber(redis.call('HGET', sweep_key(sweep), 'closes') or '0')
  return closes > 0 and now >= closes
end

-- cancel, pause or continue.
local function order_of(sweep)
  local flags = redis.call('HMGET', sweep_key(sweep), 'cancelled', 'paused')
  if flags[1] == '1' then return 'cancel' end
  if is_closed(sweep) then return 'cancel' end
  if flags[2] == '1' then return 'pause' end
  return 'continue'
end

-- Whether its search may open more tasks. Such a sweep has not ended, though all its tasks have.
-- Older programs have stored no limit: their sweeps have all their tasks. As
-- `SweepRecord::takes_tasks`.
local function takes_tasks(sweep)
  local found = redis.call('HMGET', sweep_key(sweep), 'task_limit', 'stage')
  return tonumber(found[1] or '0') > 0 and found[2] == 'ready' and order_of(sweep) ~= 'cancel'
end

-- A task leaves its worker without a result: what its sweep's owner wants decides. After `crashes` it waits before the next attempt, without a ticket.
-- Answers {'queued', generation} if it has a ticket, else {state}.
local function onward(id, crashes)
  local order = order_of(sweep_of(id))
  if order == 'cancel' then
    step(id, 'cancel')
    drop_checkpoint(id)
    event(id, 'cancelled')
    return {'cancelled'}
  elseif order == 'pause' then
    step(id, 'pause')
    event(id, 'paused')
    return {'paused'}
  end
  if crashes then
    delay(id, crashes)
    return {'queued'}
  end
  return {'queued', tostring(enqueue(id, 'requeue', true))}
end

-- An attempt ended without a result and without being asked to.
local function crashed(id, cause)
  local crashes = redis.call('HINCRBY', task_key(id), 'crashes', 1)
  let_go(id)
  event(id, 'crashed', cause)
  local attempts = tonumber(redis.call('HGET', sweep_key(sweep_of(id)), 'attempts'))
  if crashes >= attempts then
    step(id, 'fail')
    redis.call('HSET', task_key(id), 'cause', cause)
    drop_checkpoint(id)
    event(id, 'failed', cause)
    return {'failed'}
  end
  return onward(id, crashes)
end

local function is_held(id, epoch, nonce)
  local found = redis.call('HMGET', task_key(id), 'state', 'epoch', 'nonce')
  return found[1] == 'running' and found[2] == epoch and found[3] == nonce
end

-- Renews the lease and says what the sweep's owner wants.
local function renew(id, lease)
  redis.call('ZADD', P .. 'leases', now + lease, id)
  return order_of(sweep_of(id))
end

-- A worker's try to let go of a task that it does not hold. If the same attempt has let go before, its first answer was lost: what became of the task is
-- said once more, as long as nobody else has claimed it.
local function once_more(id, epoch, nonce)
  local found = redis.call('HMGET', task_key(id), 'state', 'epoch', 'nonce', 'generation')
  if found[2] ~= epoch or found[3] ~= nonce or found[1] == 'running' or found[1] == 'succeeded' then return {'fenced'} end
  if found[1] == 'queued' and wait_of(id) > 0 then return {'queued'} end
  if found[1] == 'queued' then return {'queued', found[4]} end
  return {found[1]}
end

-- Scores of the rungs that a task has reached, a line each: `samples=N loss=VALUE/ERROR METRIC=VALUE/ERROR`.
local function rungs_of(id)
  local rungs = {}
  for line in string.gmatch(redis.call('HGET', task_key(id), 'rungs') or '', '[^\n]+') do rungs[#rungs + 1] = line end
  return rungs
end

-- The last one of them, for people.
local function at_rung(rungs)
  if #rungs == 0 then return nil end
  local values = {}
  for name, value in string.gmatch(rungs[#rungs], '(%S+)=(%S+)/%S+') do values[#values + 1] = name .. ' ' .. value end
  -- Earlier programs wrote loss, its error, accuracy, its error, samples.
  local loss, accuracy = string.match(rungs[#rungs], '^([^%s=]+) %S+ (%S+)')
  if loss then values = { 'loss ' .. loss, 'accuracy ' .. accuracy } end
  return 'rung ' .. (#rungs - 1) .. ': select ' .. table.concat(values, ', ')
end

-- The task begins from nothing: it has reached no rung.
local function forget_rungs(id)
  redis.call('HDEL', task_key(id), 'rungs', 'standing')
end
