-- Ends a lease unworked. Given: the key, claim id, fence, and how many attempts are refunded.
local doc = given_document(1)
local claim = stored_claim(doc)
local refusal = stale(claim, given[4], given[5])
if refusal then
  return refusal
end
free(doc)
redis.call('HSET', doc.claim, 'attempts', math.max(0, claim.attempts - given[6]))
return {'done'}
