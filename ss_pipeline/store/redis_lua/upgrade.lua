-- Enters documents of a store of format 1 into the queues of format 2. Given: the collection, the name to go on after,
-- the most documents to look at; tenant, id and due_at of each to enter. Found: the last name looked at, or '' at the
-- end; tenant, id, priority and created_at of the documents that come next.
local collection, after, most = given[1], given[2], given[3]
if redis.call('GET', name('format')) ~= UPGRADING then -- another process has ended it, and documents change again
  return {'done', '', {}}
end
for first = 4, #given, 3 do
  local doc = document(collection, given[first], given[first + 1])
  redis.call('HSET', doc.facets, 'due_at', given[first + 2])
  requeue(doc)
end
local start = after == '' and '-' or '(' .. after
local members = redis.call('ZRANGE', name('listed', collection), start, '+', 'BYLEX', 'LIMIT', 0, most)
local rows = {}
for _, member in ipairs(members) do
  local doc = member_document(collection, member)
  local facets = stored_facets(doc)
  if facets then
    rows[#rows + 1] = {doc.tenant, doc.id, facets.priority, facets.created_at}
  end
end
return {'done', members[#members] or '', rows}
