--- One number, or struct, that every process sees: `tidemill.value "int64_t"`.

local check = require "tidemill.check"
local core = require "tidemill.core"
local data = require "tidemill.shared.data"
local ffi = require "ffi"
local shared = require "tidemill.shared"
local strict = require "tidemill.shared.strict"

local floor, type = math.floor, type

local check_number = data.check_number

local value = {}

---@class tidemill.Value
---@field get fun(self): any                 what it is now; of a struct a copy
---@field set fun(self, new: any)           numbers are converted as in C
---@field add fun(self, n: number): number   atomically; returns the new value. No fraction to int
---@field cas fun(self, old: number, new: number): boolean  set to `new` if it is `old`, atomically
---@field lock fun(self, timeout?: number): boolean, string?
---@field unlock fun(self)
---@field with fun(self, fn: function): any ...

-- Numbers are read and written at once; a struct is not, so read and write it within `with`.
local function methods_of(name, put)
  local methods = { lock = data.lock, unlock = data.unlock, with = data.with }
  local element = ffi.typeof(name)
  if data.is_struct(name) then
    function methods:get() return element(self.at[0]) end
  else
    function methods:get() return self.at[0] end
  end
  function methods:set(new) put(self.at, 0, new, "value:set", 2) end

  local add, cas = core.data_function("add", name), core.data_function("cas", name)
  if add then -- a call through a pointer that does not change is compiled as a direct one
    add = ffi.cast((("T (*)(T *, T)"):gsub("T", name)), add)
    cas = ffi.cast((("bool (*)(T *, T, T)"):gsub("T", name)), cas)
    local is_whole = tonumber(element(0.5)) == 0
    function methods:add(n)
      if type(n) ~= "number" then
        check_number("value:add", element, n, 2)
      elseif is_whole and floor(n) ~= n then
        check.fail("value:add", ("n must be a whole number, got %g"):format(n), 2)
      end
      return add(self.at, n)
    end
    function methods:cas(old, new)
      if type(old) ~= "number" then check_number("value:cas", element, old, 2) end
      if type(new) ~= "number" then check_number("value:cas", element, new, 2) end
      return cas(self.at, old, new)
    end
  end
  return methods
end

local function describe() return shared.kinds.value end

local types = setmetatable({}, { __index = function(types, name)
  local made = ffi.typeof(("struct { %s *const at; const uint32_t place, generation; }"):format(
    name))
  shared.register(made, describe)
  local put = data.putter(name)
  local metatable = {
    __gc = function(self) shared.drop(self.place, self.generation) end,
    __tostring = function(self)
      return ("tidemill.value: %s %s"):format(name, tostring(self.at[0]))
    end,
  }
  strict.complete("value", methods_of(name, put), metatable, "use get() and set()")
  types[name] = {
    pointer = ffi.typeof(name .. " *"), put = put, new = ffi.metatype(made, metatable),
  }
  return types[name]
end })

--- A value for an object that is held once for it.
function value.open(place, generation)
  local address, name, bytes = core.open_data(place, generation)
  data.received(name, bytes)
  local made = types[name]
  return shared.remember(made.new(ffi.cast(made.pointer, address), place, generation))
end

--- A shared value of a C type, zero or `init`.
---@param ctype string|ffi.ctype*  a number type, or a struct that has a name
---@param init? any
---@return tidemill.Value
function value.new(ctype, init)
  local name, bytes = data.type("tidemill.value", ctype, 3)
  local made = value.open(core.make_data("cannot make a value", name, bytes, nil, 1))
  if init ~= nil then types[name].put(made.at, 0, init, "tidemill.value", 3) end
  return made
end

return value
