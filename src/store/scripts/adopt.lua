-- Sweeps that are not known to have ended are looked at: those of an earlier version of this program have no mark. Answers how many there are.
for _, sweep in ipairs(redis.call('ZRANGE', P .. 'sweeps', 0, -1)) do
  if not redis.call('ZSCORE', P .. 'ended', sweep) then redis.call('SADD', P .. 'live', sweep) end
end
return redis.call('SCARD', P .. 'live')
