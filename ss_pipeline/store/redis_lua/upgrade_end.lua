-- Ends the upgrade to format 2. Found: 1 where this call did, 0 where another has.
if redis.call('GET', name('format')) ~= UPGRADING then
  return {'done', 0}
end
redis.call('SET', name('format'), FORMAT)
return {'done', 1}
