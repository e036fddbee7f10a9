-- Refuses a store of another format; between the prelude and every script but those that bring a store up to date.
local format = redis.call('GET', name('format'))
if format and format ~= FORMAT then
  return {'format', format, FORMAT}
end
