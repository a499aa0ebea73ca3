--- What values, arrays and matrices have in common: element types, and the lock.

local cdata = require "tidemill.cdata"
local check = require "tidemill.check"
local core = require "tidemill.core"
local ffi = require "ffi"

local data = {}

local SLICE = 0.1 -- seconds of a wait after which the script's hooks have a chance

--- The name of an element type as every process knows it, and its size.
---@param where string
---@param ctype string|ffi.ctype*
---@param level integer  as for error()
---@return string name, integer bytes
function data.type(where, ctype, level)
  if type(ctype) ~= "string" and type(ctype) ~= "cdata" then
    check.fail(where, "ctype must be the name of a C type, got " .. check.describe(ctype),
      level + 1)
  end
  local ok, found = pcall(ffi.typeof, ctype)
  if not ok then check.fail(where, tostring(found), level + 1) end
  local name = tostring(found):match "^ctype<(.*)>$"
  if not cdata.is_element(name) then
    check.fail(where, ("'%s' cannot be shared: numbers can, and structs that have a name and hold "
      .. "no pointers"):format(name), level + 1)
  end
  local size = ffi.sizeof(found)
  if not size then check.fail(where, ("'%s' has no size"):format(name), level + 1) end
  return name, size
end

--- The type of an object that was received. Raises what is wrong with it, for the decoder.
function data.received(name, bytes)
  local ok, found = pcall(ffi.typeof, name)
  if not ok then
    error(("a shared object of '%s', which is not declared here (have a module or an "
      .. "initializer declare it)"):format(name), 0)
  end
  if ffi.sizeof(found) ~= bytes then
    error(("a shared object of '%s', which is declared otherwise here"):format(name), 0)
  end
  return found
end

---@return boolean
function data.is_struct(name)
  return name:find "^struct " ~= nil or name:find "^union " ~= nil
end

-- What FFI itself calls for `at[place] = value`. Being C it is compiled within pcall(), and its
-- messages name no line of ours.
local set = debug.getmetatable(ffi.typeof "int").__newindex

local function store(at, place, value, where, level)
  local ok, problem = pcall(set, at, place, value)
  if not ok then check.fail(where:format(tonumber(place) + 1), problem, level + 1) end
end

-- Text and not a function: code is compiled for each type apart.
local putter = [[
local type, is_number, store = ...
return function(at, place, value, where, level)
  if is_number and type(value) == "number" then
    at[place] = value
  else
    store(at, place, value, where, level + 1)
  end
end
]]

--- What stores a value into an element of a type, converted as C does, or raises. Of a number's
--- way nothing but the store is left in machine code.
---@param name string
---@return fun(at: ffi.cdata*, place: integer, value: any, where: string, level: integer)  `place`
--- from 0; `where` may have a %d for it, which is from 1; `level` as for error()
function data.putter(name)
  return loadstring(putter, "=tidemill.shared.data")(type, not data.is_struct(name), store)
end

--- Raises unless C can make a number of a type of the value.
---@param element ffi.ctype*
function data.check_number(where, element, value, level)
  local ok, problem = pcall(ffi.new, element, value)
  if not ok then check.fail(where, problem, level + 1) end
end

--- Take the lock; once more if this process has it. The lock of a holder that died is taken over.
---@param timeout? number seconds; for ever when omitted
---@return boolean taken
---@return "abandoned"? note  its last holder died with it
function data.lock(self, timeout)
  check.timeout("lock", timeout, 2)
  local deadline = timeout and core.now() + timeout
  repeat
    local left = deadline and deadline - core.now() or SLICE
    local taken, note = core.lock_data(self.place, self.generation, math.min(left, SLICE))
    if taken then return true, note end
  until deadline and core.now() >= deadline
  return false
end

--- Give the lock back, as often as it was taken.
function data.unlock(self)
  if not core.unlock_data(self.place, self.generation) then
    error("unlock: this process does not have the lock", 2)
  end
end

--- The command shows where an error was raised, not where it was raised again.
local function keep_trace(err)
  core.keep_trace(err, debug.traceback("", 2):sub(2))
  return err
end

--- Run `fn(self)` under the lock and return what it returns, or raise what it raises.
---@param fn fun(self: ffi.cdata*): any ...
---@return any ...
function data.with(self, fn)
  check.type("with", "fn", fn, "function", 2)
  local function finish(ok, ...)
    core.unlock_data(self.place, self.generation)
    if not ok then error((...), 0) end
    return ...
  end
  data.lock(self)
  return finish(xpcall(fn, keep_trace, self))
end

return data
