--- Random values with sharing, cycles and tables as keys, and a comparison that minds identity.
--- Rich ones also have functions, metatables of every kind and cdata.

local ffi = require "ffi"
local point = require "support.point"
local tidemill = require "tidemill"

pcall(ffi.cdef, "struct values_pair { double x; int32_t y; };")

local values = {}

local Registered = { __index = { kind = "registered" } }
tidemill.register("support.values", Registered)

-- These are themselves on the other side; other tables are copies.
local named = { [Registered] = true, [getmetatable(point.new(1, 2))] = true }

--- Numbers from a seed, the same on every machine: Park and Miller's generator.
function values.generator(seed)
  local state = seed % 2147483646 + 1
  return function(limit)
    state = state * 16807 % 2147483647
    return state % limit + 1
  end
end

local specials = { 0, -0.0, 1 / 0, -1 / 0, 0 / 0, 2 ^ 53, -2 ^ 53, 2 ^ 53 - 1, 2 ^ 63, 5e-324, 63,
  64 }

local function random_string(random)
  local bytes = {}
  local length = random(3) == 1 and random(300) or random(12) - 1
  for i = 1, length do bytes[i] = string.char(random(256) - 1) end
  return table.concat(bytes)
end

local function random_scalar(random)
  local kind = random(7)
  if kind == 1 then return random(2) == 1 end
  if kind == 2 then return specials[random(#specials)] end
  if kind == 3 then return random(1000) - 500 end
  if kind == 4 then return (random(2 ^ 31) - 2 ^ 30) / random(1000) end
  if kind == 5 then return random(2 ^ 31) * random(2 ^ 20) end
  return random_string(random)
end

local function random_cdata(random)
  local kind = random(6)
  if kind == 1 then return random(2 ^ 31) * 1LL * random(2 ^ 31) - 2LL ^ 60 end
  if kind == 2 then return random(2 ^ 31) * 8589934592ULL end
  if kind == 3 then return ffi.new("complex", random(100) / 8, -random(100)) end
  if kind == 4 then return ffi.new("struct values_pair", random(100) / 8, random(100)) end
  local array = kind == 5 and ffi.new "double[3]" or ffi.new("int16_t[?][2]", random(5))
  ffi.fill(array, ffi.sizeof(array), random(250))
  return array
end

local random_value

-- Each returns a function with its upvalues, in `seen` before it has them: they may refer to it.
local make_function = {
  function(random, seen, depth)
    local held
    local function get() return held end
    seen[#seen + 1] = get
    held = random_value(random, seen, depth)
    return get
  end,
  function(random, seen, depth)
    local shared, own
    local function get() return shared end
    local function set(value) shared, own = value, own or get end
    seen[#seen + 1] = get
    seen[#seen + 1] = set
    shared, own = random_value(random, seen, depth), random_value(random, seen, depth)
    return set
  end,
  function(random, seen, depth)
    local outer, inner
    local function nest(argument)
      return function() return outer, inner, argument end
    end
    seen[#seen + 1] = nest
    outer, inner = random_value(random, seen, depth), nest(random_value(random, seen, depth))
    return inner
  end,
  function(random, seen, depth)
    local environment = { held = random_value(random, seen, depth) }
    return setfenv(function() return held end, environment) -- luacheck: ignore
  end,
}

local function random_extra(random, seen, depth)
  local kind = random(5)
  if kind == 1 then return random_cdata(random) end
  if kind == 2 then return random(3) == 1 and math.floor or string end
  if kind == 3 then return point.new(random(9), random(9)) end
  if kind == 4 then
    return setmetatable({ random_value(random, seen, depth - 1) }, Registered)
  end
  return make_function[random(#make_function)](random, seen, depth - 1)
end

--- Tables that are keys carry a unique `id`, so that compare() can pair them.
local function random_key(random, seen, depth)
  local kind = random(10)
  if kind == 1 and depth > 0 then
    seen.ids = (seen.ids or 0) + 1
    local key = { id = seen.ids, value = random_value(random, seen, 0) }
    return key
  end
  if kind <= 4 then return random(50) - 10 end
  local key = random_scalar(random)
  return key == key and key or "NaN"
end

local function random_table(random, seen, depth)
  local made = {}
  seen[#seen + 1] = made
  for i = 1, random(8) - 1 do made[i] = random_value(random, seen, depth - 1) end
  for _ = 1, random(6) - 1 do
    made[random_key(random, seen, depth)] = random_value(random, seen, depth - 1)
  end
  if random(20) == 1 then setmetatable(made, random_value(random, seen, 0, "table")) end
  return made
end

function random_value(random, seen, depth, wanted)
  if wanted then return random_table(random, seen, depth) end
  local kind = random(6)
  if kind == 1 and #seen > 0 then return seen[random(#seen)] end
  if kind == 6 and seen.rich and depth > 0 then return random_extra(random, seen, depth) end
  if kind <= 4 and depth > 0 then return random_table(random, seen, depth) end
  return random_scalar(random)
end

--- A random value, tables nested up to `depth`.
function values.random(random, depth)
  return random_value(random, {}, depth)
end

--- The same with functions, metatables of classes and modules, and cdata.
function values.rich(random, depth)
  return random_value(random, { rich = true }, depth)
end

local compare

local scalar_types = { ffi.typeof "int64_t", ffi.typeof "uint64_t", ffi.typeof "complex" }

local function compare_cdata(a, b)
  if ffi.typeof(a) ~= ffi.typeof(b) then return "cdata of another type" end
  for _, scalar in ipairs(scalar_types) do
    if ffi.istype(scalar, a) then return tostring(a) == tostring(b) or "another number" end
  end
  local size = ffi.sizeof(a)
  return ffi.string(ffi.cast("const char *", a), size)
    == ffi.string(ffi.cast("const char *", b), size) or "cdata of other bytes"
end

--- Cells, too, are one or two: `pairs_seen` has them by their ids.
local function compare_upvalues(a, b, pairs_seen)
  for i = 1, 255 do
    local name, value = debug.getupvalue(a, i)
    local other_name, other = debug.getupvalue(b, i)
    if name ~= other_name then return "other upvalues" end
    if not name then return true end
    local cell, other_cell = debug.upvalueid(a, i), debug.upvalueid(b, i)
    if (pairs_seen[cell] or other_cell) ~= other_cell
      or (pairs_seen[other_cell] or cell) ~= cell then
      return ("upvalue %s is another cell"):format(name)
    end
    pairs_seen[cell], pairs_seen[other_cell] = other_cell, cell
    local same = compare(value, other, pairs_seen)
    if same ~= true then return ("upvalue %s: %s"):format(name, same) end
  end
end

local function compare_functions(a, b, pairs_seen)
  if a == b then return debug.getinfo(a, "S").what == "C" or "no copy" end
  if pairs_seen[a] or pairs_seen[b] then
    return pairs_seen[a] == b and pairs_seen[b] == a or "another function"
  end
  pairs_seen[a], pairs_seen[b] = b, a
  local here, there = debug.getinfo(a, "S"), debug.getinfo(b, "S")
  if here.source ~= there.source or here.linedefined ~= there.linedefined then
    return "another function's bytecode"
  end
  local environment = getfenv(a)
  if environment ~= _G and not getmetatable(environment) then
    local same = compare(environment, getfenv(b), pairs_seen)
    if same ~= true then return "the environment: " .. same end
  end
  return compare_upvalues(a, b, pairs_seen)
end

local function pair_keys(t)
  local by_id, count = {}, 0
  for key in next, t do
    if type(key) == "table" then by_id[key.id] = key end
    count = count + 1
  end
  return by_id, count
end

local function compare_tables(a, b, pairs_seen)
  if named[a] or a == string then return a == b or "a copy of what has a name" end
  if pairs_seen[a] then return pairs_seen[a] == b or "another identity" end
  if pairs_seen[b] then return "two are one" end
  pairs_seen[a], pairs_seen[b] = b, b
  local _, count = pair_keys(a)
  local by_id, other_count = pair_keys(b)
  if count ~= other_count then return ("%d entries, not %d"):format(other_count, count) end
  for key, value in next, a do
    local other = key
    if type(key) == "table" then
      other = by_id[key.id]
      local same = compare(key, other, pairs_seen)
      if same ~= true then return "a key: " .. same end
    end
    local same = compare(value, rawget(b, other), pairs_seen)
    if same ~= true then return ("[%s]: %s"):format(tostring(key), same) end
  end
  return compare(getmetatable(a), getmetatable(b), pairs_seen)
end

function compare(a, b, pairs_seen)
  if type(a) ~= type(b) then return ("a %s, not a %s"):format(type(b), type(a)) end
  if type(a) == "table" then return compare_tables(a, b, pairs_seen) end
  if type(a) == "function" then return compare_functions(a, b, pairs_seen) end
  if type(a) == "cdata" then return compare_cdata(a, b) end
  if a ~= a then return b ~= b or "not NaN" end
  if a == 0 and b == 0 then return 1 / a == 1 / b or "another zero" end
  return a == b or ("%s, not %s"):format(tostring(b), tostring(a))
end

--- Are two values the same in structure, identity, metatables and every bit of their numbers?
---@return true|string  true, or where and how they differ
function values.compare(a, b) return compare(a, b, {}) end

return values
