--- Loops over columns of plain numbers and booleans, written so that LuaJIT compiles each into
--- machine code without a call into C or an allocation per item. The pointers are valid for the
--- call; the C half made them and knows their bounds.

local ffi = require "ffi"

local cast = ffi.cast
local doubles = ffi.typeof "double *"
local bytes = ffi.typeof "uint8_t *"

local columns = {}

--- As `fill`, out of a shared array of numbers.
local function fill_from_array(out, items, from, count)
  local at = items.at + from
  if type(at[0]) ~= "number" then return 0 end
  for i = 0, count - 1 do out[i] = at[i] end
  return count
end

--- Copy numbers out of a table, or a shared array, as far as they are numbers.
---@param column lightuserdata  double[count]
---@param items any[]|tidemill.Array
---@param from integer          items[from + 1] goes first
---@param count integer
---@return integer filled       places written before the first item that is no number
function columns.fill(column, items, from, count)
  local out = cast(doubles, column)
  if type(items) == "cdata" then return fill_from_array(out, items, from, count) end
  for i = 0, count - 1 do
    local item = rawget(items, from + i + 1)
    if type(item) ~= "number" then return i end
    out[i] = item
  end
  return count
end

--- Copy numbers into a table, to results[from + 1] and on.
---@param column lightuserdata  double[count]
---@param results any[]
---@param from integer
---@param count integer
function columns.drain_numbers(column, results, from, count)
  local source = cast(doubles, column)
  for i = 0, count - 1 do results[from + i + 1] = source[i] end
end

--- The same for booleans, a byte each.
---@param column lightuserdata  uint8_t[count]
---@param results any[]
---@param from integer
---@param count integer
function columns.drain_booleans(column, results, from, count)
  local source = cast(bytes, column)
  for i = 0, count - 1 do results[from + i + 1] = source[i] ~= 0 end
end

--- Copy numbers into the ring of a stream, side by side: see src/lua/job_ring.c.
---@param column lightuserdata  double[count]
---@param values any[]
---@param places any[]
---@param place integer         values[place + 1] is the first
---@param index integer         0-based, of the first item
---@param count integer
function columns.land_numbers(column, values, places, place, index, count)
  local source = cast(doubles, column)
  for i = 0, count - 1 do
    values[place + i + 1] = source[i]
    places[place + i + 1] = index + i + 1
  end
end

--- The same for booleans.
---@param column lightuserdata  uint8_t[count]
---@param values any[]
---@param places any[]
---@param place integer
---@param index integer
---@param count integer
function columns.land_booleans(column, values, places, place, index, count)
  local source = cast(bytes, column)
  for i = 0, count - 1 do
    values[place + i + 1] = source[i] ~= 0
    places[place + i + 1] = index + i + 1
  end
end

-- The worker's loops. Results are indexed by item; `hand` is stored before each call, after the
-- result before it. What does not fit the column ends the loop and is handed back.
local template = [[
local cast, doubles, bytes, hands, band = ...
return function(f, args, results, hand, item, last, origin, combine, roots)
  args, hand = cast(doubles, args), cast(hands, hand)
  PREPARE
  BEGIN
  for i = item, last - 1 do
    hand[0] = i
    local result = f(ARGUMENT)
    STORE
  end
  return last
end
]]

local arguments = {
  column = { PREPARE = "", ARGUMENT = "args[i]" },
  range = {
    PREPARE = "local first, step = args[0], args[1]", ARGUMENT = "first + (origin + i) * step",
  },
}

local stores = {
  number = {
    BEGIN = "results = cast(doubles, results)",
    STORE = "if type(result) ~= 'number' then return i, result end results[i] = result",
  },
  boolean = {
    BEGIN = "results = cast(bytes, results)",
    STORE = "if result == true then results[i] = 1 elseif result == false then results[i] = 0 "
      .. "else return i, result end",
  },
  truth = {
    BEGIN = "results = cast(bytes, results)",
    STORE = "if result then results[i] = 1 else results[i] = 0 end",
  },
  effect = { BEGIN = "", STORE = "" },
  -- As fold_result() in src/lua/runner_fold.c.
  fold = {
    BEGIN = "local height, start = 0, origin + item",
    STORE = [[
    local n, size = origin + i, 2
    while n + 1 >= start + size and band(n, size - 1) == size - 1 do
      result = combine(roots[height], result)
      height, size = height - 1, size * 2
    end
    height = height + 1
    roots[height] = result]],
  },
}

local hands = ffi.typeof "uint32_t *"
local dumped = {}

local function compile(argument, store)
  local source = template:gsub("%u%u%u+", function(name)
    return arguments[argument][name] or stores[store][name]
  end)
  return string.dump(assert(loadstring(source, "=tidemill.loop")))
end

--- A new copy of a loop, so that its compiled code is one function's alone.
---@param range boolean  arguments are a range's bounds, else a column
---@param store "number"|"boolean"|"truth"|"effect"|"fold"  what becomes of results
---@return function
function columns.loop(range, store)
  local argument = range and "range" or "column"
  local key = argument .. store
  dumped[key] = dumped[key] or compile(argument, store)
  return loadstring(dumped[key])(cast, doubles, bytes, hands, bit.band)
end

return columns
