-- Begins to bring a store of format 1 to format 2, or goes on with it; processes of format 1 are refused from now on.
-- Found: the collections.
if redis.call('GET', name('format')) == '1' then
  redis.call('SET', name('format'), UPGRADING)
  for _, collection in ipairs(redis.call('SMEMBERS', name('collections'))) do
    for _, group in ipairs(redis.call('ZRANGE', name('groups', collection), 0, -1)) do
      local tenant, class = string.match(group, '^(.-)\t(.*)$')
      redis.call('UNLINK', name('ready', collection, tenant, class))
    end
    redis.call('DEL', name('groups', collection))
  end
end
return {'done', redis.call('SMEMBERS', name('collections'))}
