-- What is kept of a document's claims. Given: its key. Found: fence and attempts.
local claim = stored_claim(given_document(1))
return {'done', claim.fence, claim.attempts}
