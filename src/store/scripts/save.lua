-- ARGV: task, epoch, nonce, lease in ms, sequence, checkpoint, progress as JSON or '', how far the task is (iterations, or scored ingredients).
-- Answers as renew.
-- One that is not newer than what is there is an earlier try that arrives late: it renews, and changes nothing else.
local id, sequence = ARGV[1], tonumber(ARGV[5])
if not is_held(id, ARGV[2], ARGV[3]) then return 'fenced' end
if sequence > tonumber(redis.call('HGET', task_key(id), 'sequence') or '0') then
  redis.call('SET', P .. 'checkpoint:' .. id, ARGV[6])
  redis.call('HSET', task_key(id), 'sequence', sequence)
  -- Only what is further than any earlier attempt was is progress, from which crashes are counted anew. A checkpoint alone is none: every attempt writes one.
  if tonumber(ARGV[8]) > tonumber(redis.call('HGET', task_key(id), 'reached') or '0') then
    redis.call('HSET', task_key(id), 'reached', ARGV[8], 'crashes', 0)
  end
  if ARGV[7] ~= '' then redis.call('HSET', task_key(id), 'progress', ARGV[7]) end
end
return renew(id, tonumber(ARGV[4]))
