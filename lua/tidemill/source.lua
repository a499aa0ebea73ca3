--- Items as a method takes them: a table, a range, or an iterator that is called until nil.

local check = require "tidemill.check"
local core = require "tidemill.core"
local range = require "tidemill.range"
local shared = require "tidemill.shared"

local source = {}

local next_element = ipairs {}

local BATCH = 1024   -- items pulled before they are sent
local SLOW = 20e-6   -- seconds: an iterator that takes longer is not asked for more than one

--- How many items a list has: `n` if it says so, as what was packed with nils does.
local function length_of(where, items, level)
  local n, length = rawget(items, "n"), #items
  if type(n) == "number" and n >= 0 and n % 1 == 0 then return n end
  local key = length > 0 and length or nil
  repeat key = next(items, key) until key == nil or type(key) == "number" and key > length
  if key then
    local text = "items has no element %d, but one at %s: with holes it needs its length as n"
    check.fail(where, text:format(length + 1, tostring(key)), level + 1)
  end
  if length == 0 and next(items) ~= nil then
    check.fail(where, "items has keys but no element 1: it must be a list", level + 1)
  end
  return length
end

--- Items as the core takes them.
---@return table|ffi.cdata*? list  for a table, or a shared array
---@return integer total      0 for an iterator
---@return number? first      of a range
---@return number? step
---@return function? iterator
function source.of(method, items, level)
  if range.is_range(items) then return nil, items.count, items.first, items.step end
  if items == next or items == next_element then
    check.fail("pool:" .. method, "items must be a table, or a function that needs no arguments: "
      .. "not what pairs() or ipairs() return", level + 1)
  end
  if type(items) == "function" then return nil, 0, nil, nil, items end
  local list = shared.items(items)
  if list then return list, #list end
  check.type("pool:" .. method, "items", items, "table/function", level + 1)
  return items, length_of("pool:" .. method, items, level + 1)
end

--- All there is, in a table.
function source.pull_all(iterator)
  local items, count = {}, 0
  for item in iterator do
    count = count + 1
    items[count] = item
  end
  return items, count
end

---@class tidemill.Batch
---@field items any[]
---@field count integer
---@field ended? boolean   the iterator gave nil, or raised
---@field slow? boolean
---@field failure? table   { what the iterator raised }
---@field out integer      items on their way, these included

local function fill(batch, iterator, room)
  local items, from = batch.items, core.now()
  for count = 1, math.min(room, BATCH) do
    local item = iterator()
    if item == nil then
      batch.ended = true
      return
    end
    items[count], batch.count = item, count
    if count == 1 and core.now() - from > SLOW then
      batch.slow = true
      return
    end
  end
end

--- Feed a job with the next items of an iterator, as many as its window has room for; only one of a
--- slow iterator, so that work begins with what there is. What was pulled before the iterator
--- raised is fed.
---@param job userdata
---@param iterator function
---@param taken integer  results that were taken of a stream
---@return tidemill.Batch
function source.feed(job, iterator, taken)
  local room, out = core.room(job, taken)
  local batch = { items = {}, count = 0, out = out }
  if room == 0 then return batch end
  local ok, problem = pcall(fill, batch, iterator, room)
  if not ok then batch.failure, batch.ended = { problem }, true end
  if batch.count > 0 then core.feed(job, batch.items, batch.count) end
  if batch.ended then core.feed(job, batch.items, 0) end
  batch.out = out + batch.count
  return batch
end

return source
