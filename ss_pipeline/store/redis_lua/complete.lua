-- Ends a lease whose work is done: attempts are counted anew. Given: the key, claim id, fence.
local doc = given_document(1)
local refusal = stale(stored_claim(doc), given[4], given[5])
if refusal then
  return refusal
end
redis.call('HDEL', doc.claim, 'attempts')
free(doc)
return {'done'}
