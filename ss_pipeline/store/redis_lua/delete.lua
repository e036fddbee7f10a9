-- Removes a document if its body is the expected one. Given: its key, the expected body.
local doc = given_document(1)
local refusal = sealed() or missing(doc) or changed(doc, given[4])
if refusal then
  return refusal
end
redis.call('DEL', doc.body)
unlist(doc)
return {'done'}
