-- Compare-and-set. Given: the key, facets, body, the expected body; claim id and fence, or neither.
local doc, facets = given_document(1), given_facets(4)
local body, expected, claim_id, fence = given[11], given[12], given[13], given[14]
local refusal = sealed() or missing(doc)
if not refusal and fence then
  local claim = stored_claim(doc)
  refusal = stale(claim, claim_id, fence) or (not is_live(claim) and {'stale'})
end
refusal = refusal or changed(doc, expected)
if refusal then
  return refusal
end
redis.call('SET', doc.body, body)
list(doc, facets)
return {'done'}
