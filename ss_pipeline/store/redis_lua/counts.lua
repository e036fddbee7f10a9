-- How many documents of a collection there are for each tenant and status. Given: the collection.
return {'done', redis.call('HGETALL', name('counts', given[1]))}
