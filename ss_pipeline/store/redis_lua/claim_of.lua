-- Who holds a document now. Given: its key. Found: nothing, or claim id, owner, state, fence, attempts, seconds left.
local claim = stored_claim(given_document(1))
if not is_live(claim) then
  return {'done'}
end
local left = string.format('%.6f', claim.expires_at - now)
return {'done', claim.claim_id, claim.owner, claim.state, claim.fence, claim.attempts, left}
