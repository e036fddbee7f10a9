-- Frees what is reserved, not leased, under a claim. Given: the claim id, the keys.
local claim_id = given[1]
for first = 2, #given, 3 do
  local doc = given_document(first)
  local claim = stored_claim(doc)
  if not missing(doc) and claim.state == 'reserved' and claim.claim_id == claim_id then
    free(doc)
  end
end
return {'done'}
