-- A page of a listing. Given: the collection, the first and the last name as ranges have them, the most rows;
-- a status, or none.
local collection, first, last, most, status = given[1], given[2], given[3], given[4], given[5]
local listed = status and name('listed', collection, status) or name('listed', collection)
local rows = {}
for _, member in ipairs(redis.call('ZRANGE', listed, first, last, 'BYLEX', 'LIMIT', 0, most)) do
  add_row(rows, member_document(collection, member))
end
return {'done', rows}
