--- The host's half of `mapreduce`: partial results of whole subtrees over the items' indices come
--- in any order, and are combined in the one order there is (see src/lua/runner_fold.c).

local errors = require "tidemill.errors"

local reduce = {}

local LEVELS = 64 -- as in src/lua/job_ring.c

local function traced(message)
  if errors.is_error(message) then return message end
  return errors.new {
    kind = "task", value = message, message = "combine: " .. tostring(message),
    traceback = debug.traceback("", 2):sub(2),
  }
end

---@class tidemill.Fold
---@field _combine function
---@field _rows table<integer, table<integer, table>>  by level and index: { value }
local Fold = {}
local Fold_mt = { __index = Fold, __name = "tidemill.Fold" }

---@return tidemill.Fold
function reduce.new(combine)
  return setmetatable({ _combine = combine, _rows = {} }, Fold_mt)
end

--- Add the partial result of `2^level` items from `first` on, with all that it completes.
local function add(self, first, level, value)
  local index = first / 2 ^ level
  while true do
    local row = self._rows[level] or {}
    self._rows[level] = row
    local is_left = index % 2 == 0
    local sibling = is_left and index + 1 or index - 1
    local other = row[sibling]
    if not other then
      row[index] = { value }
      return
    end
    row[sibling] = nil
    if is_left then
      value = self._combine(value, other[1])
    else
      value = self._combine(other[1], value)
    end
    level, index = level + 1, math.floor(index / 2)
  end
end

--- Add a partial result by its place in the ring. Raises what `combine` raises, as an error object.
---@param place integer
---@param value any
function Fold:add(place, value)
  local level = place % LEVELS
  local first = (place - level) / LEVELS - 1
  local ok, err = xpcall(add, traced, self, first, level, value)
  if not ok then error(err, 0) end
end

local function combine_all(self, init)
  local roots = {}
  for level, row in pairs(self._rows) do
    for index, box in pairs(row) do roots[#roots + 1] = { index * 2 ^ level, box[1] } end
  end
  table.sort(roots, function(a, b) return a[1] < b[1] end)
  local value = init
  for i, root in ipairs(roots) do
    if i == 1 and init == nil then
      value = root[2]
    else
      value = self._combine(value, root[2])
    end
  end
  return value
end

--- All of it, `init` first if there is one.
function Fold:result(init)
  local ok, value = xpcall(combine_all, traced, self, init)
  if not ok then error(value, 0) end
  return value
end

return reduce
