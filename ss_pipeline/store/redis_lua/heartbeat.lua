-- Prolongs leases from now. Given: seconds; key, claim id and fence of each. Found: the indexes of those still held.
local ttl, kept = tonumber(given[1]), {}
for first = 2, #given, 5 do
  local doc, claim_id, fence = given_document(first), given[first + 3], given[first + 4]
  local claim = stored_claim(doc)
  if not missing(doc) and is_of(claim, claim_id, fence) and is_live(claim) then
    hold(doc, 'leased', claim_id, claim.owner, ttl)
    kept[#kept + 1] = (first - 2) / 5
  end
end
return {'done', kept}
