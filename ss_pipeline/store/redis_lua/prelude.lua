-- What every script begins with: its arguments, the names of keys, and the steps that changes are made of.
-- A script answers with a list: first 'done', or the reason why nothing was changed; then what it found.
--
-- Keys, each after the namespace. A part is percent-encoded where it holds % or :, so no two documents share a key.
--   job:<id>  job:<tenant>:<id>  doc:<collection>:<tenant>:<id>   text: the body, byte for byte
--   ss:facets:<collection>:<tenant>:<id>     hash: what the document is listed and queued by
--   ss:claim:<collection>:<tenant>:<id>      hash: who holds it; fence and attempts outlive claim and document
--   ss:listed:<collection>                   sorted set in key order: <tenant> TAB <id>
--   ss:listed:<collection>:<status>          the same, of one status
--   ss:counts:<collection>                   hash: <tenant> TAB <status> -> documents
--   ss:collections                           set: the collections that have documents
--   ss:ready:<collection>:<tenant>:<class>   sorted set in the order of the queue: <id>, by due_at
--   ss:groups:<collection>                   sorted set: <tenant> TAB <class> of each queue that is not empty
--   ss:held:<collection>                     sorted set: <tenant> TAB <id>, by the epoch seconds when its claim ends
--   ss:parked:<collection>                   the same, by the epoch seconds before which it is not offered
--   ss:sealed                                text: the successor of a sealed store
--   ss:format                                text: the number of this layout, or that it is being brought to it
-- A TAB sorts before every character that a name may have, so the sets are in the order of (tenant, id).

local FORMAT, UPGRADING = '2', '1 to 2'

local space, heeds_seal = ARGV[1], ARGV[2] == '1'
local given = {}
for index = 3, #ARGV do
  given[index - 2] = ARGV[index]
end

local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6

-- names ---------------------------------------------------------------------------------------------------------------

local ESCAPED = {['%'] = '%25', [':'] = '%3A'}

local function key(...)
  local parts = {...}
  for index, part in ipairs(parts) do
    parts[index] = string.gsub(part, '[%%:]', ESCAPED)
  end
  return space .. table.concat(parts, ':')
end

local function name(...)
  return key('ss', ...)
end

local function body_key(collection, tenant, id)
  if collection ~= 'jobs' then
    return key('doc', collection, tenant, id)
  elseif tenant ~= 'default' then
    return key('job', tenant, id)
  end
  return key('job', id)
end

local function document(collection, tenant, id)
  return {
    collection = collection,
    tenant = tenant,
    id = id,
    member = tenant .. '\t' .. id,
    body = body_key(collection, tenant, id),
    facets = name('facets', collection, tenant, id),
    claim = name('claim', collection, tenant, id),
  }
end

local function given_document(first)
  return document(given[first], given[first + 1], given[first + 2])
end

local function member_document(collection, member)
  local tenant, id = string.match(member, '^(.-)\t(.*)$')
  return document(collection, tenant, id)
end

-- facets --------------------------------------------------------------------------------------------------------------

local function given_facets(first)
  return {
    status = given[first],
    priority = given[first + 1],
    class = given[first + 2],
    created_at = given[first + 3],
    waiting = given[first + 4],
    not_before = given[first + 5],
    due_at = given[first + 6],
  }
end

local function stored_facets(doc)
  local stored = redis.call(
    'HMGET', doc.facets, 'status', 'priority', 'class', 'created_at', 'waiting', 'not_before', 'due_at'
  )
  return stored[1] and {
    status = stored[1],
    priority = stored[2],
    class = stored[3],
    created_at = stored[4],
    waiting = stored[5],
    not_before = stored[6],
    due_at = stored[7],
  }
end

local function add_row(rows, doc)
  local facets = stored_facets(doc)
  if facets then
    rows[#rows + 1] = {
      doc.tenant,
      doc.id,
      facets.status,
      facets.priority,
      facets.created_at,
      facets.waiting,
      facets.not_before,
      facets.due_at,
    }
  end
end

-- claims --------------------------------------------------------------------------------------------------------------

local function stored_claim(doc)
  local stored =
    redis.call('HMGET', doc.claim, 'state', 'claim_id', 'owner', 'fence', 'attempts', 'expires_at')
  return {
    state = stored[1] or 'free',
    claim_id = stored[2] or '',
    owner = stored[3] or '',
    fence = stored[4] or '0',
    attempts = stored[5] or '0',
    expires_at = tonumber(stored[6] or '0'),
  }
end

local function is_live(claim)
  return claim.state ~= 'free' and now < claim.expires_at
end

local function is_open_to(claim, claim_id)
  return not is_live(claim) or (claim.state == 'reserved' and claim.claim_id == claim_id)
end

local function is_of(claim, claim_id, fence)
  return claim.state == 'leased' and claim.claim_id == claim_id and claim.fence == fence
end

-- the queue -----------------------------------------------------------------------------------------------------------

local function leave_queue(doc, facets)
  redis.call('ZREM', name('held', doc.collection), doc.member)
  redis.call('ZREM', name('parked', doc.collection), doc.member)
  local ready = name('ready', doc.collection, doc.tenant, facets.class)
  redis.call('ZREM', ready, doc.id)
  if redis.call('EXISTS', ready) == 0 then
    redis.call('ZREM', name('groups', doc.collection), doc.tenant .. '\t' .. facets.class)
  end
end

local function enter_queue(doc, facets)
  local claim = stored_claim(doc)
  if facets.waiting ~= '1' then
    return
  elseif is_live(claim) then
    redis.call('ZADD', name('held', doc.collection), claim.expires_at, doc.member)
  elseif tonumber(facets.not_before) > now then
    redis.call('ZADD', name('parked', doc.collection), facets.not_before, doc.member)
  else
    local ready = name('ready', doc.collection, doc.tenant, facets.class)
    redis.call('ZADD', ready, facets.due_at, doc.id)
    redis.call('ZADD', name('groups', doc.collection), 0, doc.tenant .. '\t' .. facets.class)
  end
end

local function requeue(doc)
  local facets = stored_facets(doc)
  if facets then
    leave_queue(doc, facets)
    enter_queue(doc, facets)
  end
end

local function hold(doc, state, claim_id, owner, ttl)
  redis.call(
    'HSET', doc.claim, 'state', state, 'claim_id', claim_id, 'owner', owner, 'expires_at', now + ttl
  )
  requeue(doc)
end

local function free(doc)
  redis.call('HDEL', doc.claim, 'state', 'claim_id', 'owner', 'expires_at')
  requeue(doc)
end

-- listings ------------------------------------------------------------------------------------------------------------

local function count(doc, facets, change)
  local counts, field = name('counts', doc.collection), doc.tenant .. '\t' .. facets.status
  if redis.call('HINCRBY', counts, field, change) == 0 then
    redis.call('HDEL', counts, field)
  end
end

local function unlist(doc)
  local facets = stored_facets(doc)
  if not facets then
    return
  end
  leave_queue(doc, facets)
  local listed = name('listed', doc.collection)
  redis.call('ZREM', listed, doc.member)
  redis.call('ZREM', name('listed', doc.collection, facets.status), doc.member)
  count(doc, facets, -1)
  redis.call('DEL', doc.facets)
  if redis.call('EXISTS', listed) == 0 then
    redis.call('SREM', name('collections'), doc.collection)
  end
end

local function list(doc, facets)
  unlist(doc)
  redis.call(
    'HSET', doc.facets, 'status', facets.status, 'priority', facets.priority, 'class', facets.class,
    'created_at', facets.created_at, 'waiting', facets.waiting, 'not_before', facets.not_before,
    'due_at', facets.due_at
  )
  redis.call('ZADD', name('listed', doc.collection), 0, doc.member)
  redis.call('ZADD', name('listed', doc.collection, facets.status), 0, doc.member)
  count(doc, facets, 1)
  redis.call('SADD', name('collections'), doc.collection)
  enter_queue(doc, facets)
end

-- refusals: nil, or the answer that says why nothing is changed -------------------------------------------------------

local function sealed()
  local successor = heeds_seal and redis.call('GET', name('sealed'))
  return successor and {'sealed', successor}
end

local function missing(doc)
  return redis.call('EXISTS', doc.body) == 0 and {'missing'}
end

local function changed(doc, expected)
  return redis.call('GET', doc.body) ~= expected and {'changed'}
end

local function stale(claim, claim_id, fence)
  return not is_of(claim, claim_id, fence) and {'stale'}
end
