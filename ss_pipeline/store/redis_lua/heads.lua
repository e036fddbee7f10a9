-- Who is next of each group. Given: the collection, how many of each group, the most to open in one call.
--
-- First it opens what is held or parked no longer, and answers whether more of that is left: the caller asks again
-- then, so that however many come due together the server is never busy with them for long.
local collection, per_group, most = given[1], tonumber(given[2]), tonumber(given[3])

local function open(gate)
  local due = redis.call('ZRANGE', name(gate, collection), '-inf', now, 'BYSCORE', 'LIMIT', 0, most)
  for _, member in ipairs(due) do
    redis.call('ZREM', name(gate, collection), member)
    requeue(member_document(collection, member))
  end
  return #due == most
end

local held, parked = open('held'), open('parked')
if held or parked then
  return {'done', 1, {}}
end

local rows = {}
for _, group in ipairs(redis.call('ZRANGE', name('groups', collection), 0, -1)) do
  local tenant, class = string.match(group, '^(.-)\t(.*)$')
  for _, id in ipairs(redis.call('ZRANGE', name('ready', collection, tenant, class), 0, per_group - 1)) do
    add_row(rows, document(collection, tenant, id))
  end
end
return {'done', 0, rows}
