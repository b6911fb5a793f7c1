-- ARGV: task, generation, worker, nonce, lease in ms.
-- Answers {'claimed', epoch, body, scores, spec, manifest or '', checkpoint or '', sequence, attempts, rungs reached} or {'refused', why, detail}.
local id, generation, worker, nonce, lease = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local sweep = sweep_of(id)
local found = redis.call('HMGET', task_key(id), 'state', 'generation', 'nonce', 'epoch')
if not found[1] then return {'refused', 'unknown', ''} end
local again = found[1] == 'running' and found[3] == nonce
if not again then
  if found[1] ~= 'queued' then return {'refused', 'state', found[1]} end
  if found[2] ~= generation then return {'refused', 'generation', found[2]} end
  -- Its last attempt crashed: the next one begins later, whoever asks.
  local wait = wait_of(id)
  if wait > 0 then return {'refused', 'early', tostring(wait)} end
  drop_ticket(id, generation)
  local order = order_of(sweep)
  if order == 'cancel' then
    step(id, 'cancel')
    drop_checkpoint(id)
    event(id, 'cancelled')
    return {'refused', 'state', 'cancelled'}
  elseif order == 'pause' then
    step(id, 'pause')
    event(id, 'paused')
    return {'refused', 'state', 'paused'}
  end
  local cap = tonumber(redis.call('HGET', sweep_key(sweep), 'cap'))
  if cap > 0 and redis.call('SCARD', P .. 'running:' .. sweep) >= cap then
    redis.call('ZADD', P .. 'ready:' .. sweep, redis.call('HGET', task_key(id), 'order'), id)
    return {'refused', 'cap', ''}
  end
  step(id, 'claim')
  redis.call('HSET', task_key(id), 'nonce', nonce, 'worker', worker, 'lease', lease)
  redis.call('HINCRBY', task_key(id), 'epoch', 1)
  redis.call('HINCRBY', task_key(id), 'attempts', 1)
  redis.call('SADD', P .. 'running:' .. sweep, id)
  event(id, 'claimed', worker)
end
redis.call('ZADD', P .. 'leases', now + lease, id)
local task = redis.call('HMGET', task_key(id), 'epoch', 'scores', 'sequence', 'attempts')
local of_sweep = redis.call('HMGET', sweep_key(sweep), 'spec', 'manifest')
local checkpoint = redis.call('GET', P .. 'checkpoint:' .. id)
return {'claimed', task[1], redis.call('HGET', bodies_key(sweep), id), task[2] or '0', of_sweep[1], of_sweep[2] or '', checkpoint or '', task[3] or '0', task[4],
  tostring(#rungs_of(id))}
