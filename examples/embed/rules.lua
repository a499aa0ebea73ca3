-- Rules for rules.c. Each has a weight, and says of a record whether it applies. `text.distance`
-- is a C function of the program.

local ffi = require "ffi"

local known = { "alice", "bob", "carol", "dave" }

local function is_near(name)
  for _, other in ipairs(known) do
    if name ~= other and text.distance(name, other) == 1 then return true end
  end
  return false
end

local rules = {
  { "large", 30, function(r) return r.amount > 1000 end },
  { "nearly a known name", 50, function(r) return is_near(r.name) end },
  { "at night", 20, function(r) return r.hour < 6 end },
  { "abroad", 10.5, function(r)
    -- A rule with a fault: whoever wrote it took a number for an address.
    if r.country == "XX" then return ffi.cast("int *", r.amount)[0] == 0 end
    return r.country ~= "DE"
  end },
}

--- What the program calls for each record.
function score(record)
  local sum, because = 0, {}
  for _, rule in ipairs(rules) do
    local name, weight, applies = rule[1], rule[2], rule[3]
    if applies(record) then
      sum = sum + weight
      because[#because + 1] = name
    end
  end
  return { score = sum, because = because[1] and table.concat(because, ", ") or "-" }
end
