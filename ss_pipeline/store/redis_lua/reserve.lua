-- Reserves those of the documents that are free. Given: the claim id, seconds, the keys. Found: the indexes of those
-- reserved.
local refusal = sealed()
if refusal then
  return refusal
end
local claim_id, ttl, reserved = given[1], tonumber(given[2]), {}
for first = 3, #given, 3 do
  local doc = given_document(first)
  if missing(doc) then
    unlist(doc)
  elseif is_open_to(stored_claim(doc), claim_id) then
    hold(doc, 'reserved', claim_id, '', ttl)
    reserved[#reserved + 1] = (first - 3) / 3
  end
end
return {'done', reserved}
