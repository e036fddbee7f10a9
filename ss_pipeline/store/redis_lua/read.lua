-- The body of a document. Given: its key.
local body = redis.call('GET', given_document(1).body)
return body and {'done', body} or {'missing'}
