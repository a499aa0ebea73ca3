--- Random values with sharing, cycles and tables as keys, and a comparison that minds identity.

local values = {}

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

local random_value

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
  if kind <= 4 and depth > 0 then return random_table(random, seen, depth) end
  return random_scalar(random)
end

--- A random value, tables nested up to `depth`.
function values.random(random, depth)
  return random_value(random, {}, depth)
end

local compare

local function pair_keys(t)
  local by_id, count = {}, 0
  for key in next, t do
    if type(key) == "table" then by_id[key.id] = key end
    count = count + 1
  end
  return by_id, count
end

local function compare_tables(a, b, pairs_seen)
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
  if a ~= a then return b ~= b or "not NaN" end
  if a == 0 and b == 0 then return 1 / a == 1 / b or "another zero" end
  return a == b or ("%s, not %s"):format(tostring(b), tostring(a))
end

--- Are two values the same in structure, identity, metatables and every bit of their numbers?
---@return true|string  true, or where and how they differ
function values.compare(a, b) return compare(a, b, {}) end

return values
