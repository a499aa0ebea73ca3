--- Shared objects that are no more than a handle to Lua: a ctype, its methods, its way to travel.

local check = require "tidemill.check"
local errors = require "tidemill.errors"
local ffi = require "ffi"
local shared = require "tidemill.shared"
local strict = require "tidemill.shared.strict"

local plain = {}

local istype = ffi.istype

--- Give a kind its ctype: a struct of its handle and, maybe, more.
---@param kind string      as in `shared.kinds`
---@param methods table    may be filled later
---@param metatable table  `__index`, unless it is there, `__gc` and refusals are added
---@param more? string     further fields
---@param hint? string     what to use instead of what the kind has not
---@return fun(place: integer, generation: integer, ...): ffi.cdata*  the value, with those
---@return fun(self: any, method: string)  raises unless `self` is one
---@return fun(key: any, level: integer)   raises for a field that there is not
function plain.define(kind, methods, metatable, more, hint)
  -- A test runner may remember types by their texts, and load modules anew: a text of its own.
  local ctype = ffi.typeof(("struct { /* %s %s */ const uint32_t place, generation; %s }"):format(
    kind, tostring(metatable), more or ""))
  local number = shared.kinds[kind]
  shared.register(ctype, function() return number end)
  metatable.__gc = function(self) shared.drop(self.place, self.generation) end
  local refuse_field = strict.complete(kind, methods, metatable, hint)
  local new = ffi.metatype(ctype, metatable)
  local function make(place, generation, ...)
    return shared.remember(new(place, generation, ...))
  end
  local function check_self(self, method)
    if not istype(ctype, self) then
      check.fail(kind .. ":" .. method, "call it with a colon", 3)
    end
  end
  return make, check_self, refuse_field
end

--- What became of a wait: true, or false when its time is over. Raises if nobody is left.
---@param status string
---@param where string
---@param what string  that nobody is left to do
---@return boolean
function plain.outcome(status, where, what)
  if status ~= "alone" then return status == "done" end
  error(errors.new {
    kind = "broken", message = ("%s: nobody is left who could %s"):format(where, what),
  }, 0)
end

--- A time limit as a method takes it: false is 0.
---@return number?
function plain.patience(where, timeout)
  if timeout == false then return 0 end
  check.timeout(where, timeout, 3)
  return timeout
end

return plain
