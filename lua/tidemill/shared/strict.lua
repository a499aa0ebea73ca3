--- What shared objects are not: a field or an operator that a kind lacks raises where the script
--- stands, naming the kind and what it has.

local check = require "tidemill.check"

local strict = {}

local operators = {
  add = "+", sub = "-", mul = "*", div = "/", mod = "%", pow = "^", unm = "-", concat = "..",
  len = "#", lt = "< or >", le = "<= or >=", call = "()",
}

local function names_of(methods)
  local names = {}
  for name in pairs(methods) do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, ", ")
end

--- Complete a metatable for an FFI type.
---
--- Methods are found in a table as before, compiled code knows them: only what is not there comes
--- to a function. An `__index` that is a function calls the one that is returned.
---@param kind string
---@param methods table    may be filled later
---@param metatable table  what it lacks is added
---@param hint? string     what to use instead, for the messages
---@return fun(key: any, level: integer)  refuses a field; level as for error()
function strict.complete(kind, methods, metatable, hint)
  local function refuse(what, level)
    error(("tidemill.%s has no %s: %sit has %s"):format(kind, what, hint and hint .. "; " or "",
      names_of(methods)), level + 1)
  end
  local function refuse_field(key, level)
    refuse("field " .. check.describe(key), level + 1)
  end
  local function refuse_key(_, key) refuse_field(key, 2) end

  metatable.__index = metatable.__index or setmetatable(methods, { __index = refuse_key })
  metatable.__newindex = metatable.__newindex or refuse_key
  for name, operator in pairs(operators) do
    local function refuse_operator() refuse("operator " .. operator, 2) end
    metatable["__" .. name] = metatable["__" .. name] or refuse_operator
  end
  return refuse_field
end

return strict
