-- Goes on from another store's history, where the document is there and nobody holds it. Given: the key, fence,
-- attempts.
local doc, fence, attempts = given_document(1), given[4], given[5]
local refusal = sealed()
if refusal then
  return refusal
end
local claim = stored_claim(doc)
if not missing(doc) and not is_live(claim) then
  local higher = tonumber(fence) > tonumber(claim.fence) and fence or claim.fence
  redis.call('HSET', doc.claim, 'fence', higher, 'attempts', attempts)
end
return {'done'}
