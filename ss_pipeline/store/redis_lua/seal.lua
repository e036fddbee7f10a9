-- Refuses every change and new claim from now on. Given: the successor.
redis.call('SET', name('sealed'), given[1])
return {'done'}
