-- Creates a document that must not be there yet. Given: its key, facets, body.
local doc, facets, body = given_document(1), given_facets(4), given[11]
local refusal = sealed() or (not missing(doc) and {'exists'})
if refusal then
  return refusal
end
redis.call('SET', doc.body, body)
redis.call('SET', name('format'), FORMAT, 'NX')
list(doc, facets)
return {'done'}
