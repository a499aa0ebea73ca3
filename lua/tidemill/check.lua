--- Arguments of the public functions: misuse raises a plain error where the caller stands, naming
--- the function and the argument.

local check = {}

local function fail(where, what, level)
  error(("%s: %s"):format(where, what), level + 1)
end

--- A value as it stands in a message.
function check.describe(value)
  local kind = type(value)
  if kind == "number" or kind == "boolean" then return tostring(value) end
  if kind == "string" then return ("'%s'"):format(value) end
  return kind
end

---@param where string
---@param what string
---@param level integer  as for error(), from the caller's point of view
function check.fail(where, what, level)
  fail(where, what, level + 1)
end

--- A whole number of at least `least`.
function check.count(where, name, value, least, level)
  if type(value) ~= "number" or value < least or value % 1 ~= 0 or value > 2 ^ 31 then
    fail(where, ("%s must be a whole number from %d, got %s"):format(name, least,
      check.describe(value)), level + 1)
  end
end

--- A value of one of the types, or nil where that is among them.
function check.type(where, name, value, types, level)
  local kind = type(value)
  for wanted in types:gmatch "[^/]+" do
    if kind == wanted then return end
  end
  fail(where, ("%s must be a %s, got %s"):format(name, (types:gsub("/", " or ")),
    check.describe(value)), level + 1)
end

--- Seconds to wait, nil for ever.
function check.timeout(where, value, level)
  if value ~= nil and (type(value) ~= "number" or value ~= value) then
    fail(where, ("timeout must be a number of seconds, got %s"):format(check.describe(value)),
      level + 1)
  end
end

--- Only the keys of `known` are in `options`.
function check.keys(where, options, known, level)
  for key in pairs(options) do
    if not known[key] then
      fail(where, ("unknown option %s"):format(check.describe(key)), level + 1)
    end
  end
end

return check
