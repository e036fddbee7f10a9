-- Takes changes again.
redis.call('DEL', name('sealed'))
return {'done'}
