-- ARGV: task, epoch, nonce, lease in ms, progress as JSON or ''. Answers 'fenced', 'continue', 'pause' or 'cancel'.
if not is_held(ARGV[1], ARGV[2], ARGV[3]) then return 'fenced' end
if ARGV[5] ~= '' then redis.call('HSET', task_key(ARGV[1]), 'progress', ARGV[5]) end
return renew(ARGV[1], tonumber(ARGV[4]))
