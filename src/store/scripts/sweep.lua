-- ARGV: sweep. Answers {name, stage, order, created, priority, cap, ready, '1' if its tasks are begun as a search wants them, then state and count of its tasks}; nothing without the sweep.
local sweep = ARGV[1]
local of = redis.call('HMGET', sweep_key(sweep), 'name', 'stage', 'created', 'priority', 'cap', 'paced')
if not of[1] then return {} end
local answer = {of[1], of[2], order_of(sweep), of[3], of[4], of[5], tostring(redis.call('ZCARD', P .. 'ready:' .. sweep)), of[6] or '0'}
for _, word in ipairs(redis.call('HGETALL', P .. 'counts:' .. sweep)) do answer[#answer + 1] = word end
return answer
