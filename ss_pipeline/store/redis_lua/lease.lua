-- Leases those of the documents that are free or reserved under the claim. Given: the claim id, the owner, seconds, the
-- keys. Found: index, fence and attempts of each leased.
local refusal = sealed()
if refusal then
  return refusal
end
local claim_id, owner, ttl, leased = given[1], given[2], tonumber(given[3]), {}
for first = 4, #given, 3 do
  local doc = given_document(first)
  if missing(doc) then
    unlist(doc)
  elseif is_open_to(stored_claim(doc), claim_id) then
    redis.call('HINCRBY', doc.claim, 'fence', 1)
    redis.call('HINCRBY', doc.claim, 'attempts', 1)
    hold(doc, 'leased', claim_id, owner, ttl)
    local claim = stored_claim(doc)
    leased[#leased + 1] = {(first - 4) / 3, claim.fence, claim.attempts}
  end
end
return {'done', leased}
