-- The successor that a sealed store names. Found: nothing, or the successor.
return {'done', redis.call('GET', name('sealed'))}
