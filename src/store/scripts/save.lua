-- ARGV: task, epoch, nonce, lease in ms, sequence, checkpoint, progress as JSON or ''. Answers as renew.
-- One that is not newer than what is there is an earlier try that arrives late: it renews, and changes nothing else.
local id, sequence = ARGV[1], tonumber(ARGV[5])
if not is_held(id, ARGV[2], ARGV[3]) then return 'fenced' end
if sequence > tonumber(redis.call('HGET', task_key(id), 'sequence') or '0') then
  redis.call('SET', P .. 'checkpoint:' .. id, ARGV[6])
  -- Progress: attempts that crash are counted anew from here.
  redis.call('HSET', task_key(id), 'sequence', sequence, 'crashes', 0)
  if ARGV[7] ~= '' then redis.call('HSET', task_key(id), 'progress', ARGV[7]) end
end
return renew(id, tonumber(ARGV[4]))
