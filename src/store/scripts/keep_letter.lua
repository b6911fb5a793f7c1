-- ARGV: most, letter as JSON. A dead letter that is no ticket is kept, as one of the newest.
redis.call('LPUSH', P .. 'letters', now .. ' ' .. ARGV[2])
redis.call('LTRIM', P .. 'letters', 0, ARGV[1] - 1)
redis.call('INCR', P .. 'letters-total')
