-- The collections that have documents, in no order.
return {'done', redis.call('SMEMBERS', name('collections'))}
