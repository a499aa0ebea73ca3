--- Dictionaries that processes share: keys are strings, numbers and booleans, values whatever
--- travels.

local check = require "tidemill.check"
local core = require "tidemill.core"
local errors = require "tidemill.errors"
local plain = require "tidemill.shared.plain"

local dict = {}

---@class tidemill.Dict
---@operator len: integer
local Dict = {}

local make, check_self = plain.define("dict", Dict, {
  __len = function(self) return core.dict_count(self) end,
  __tostring = function(self) return ("tidemill.Dict (%d keys)"):format(core.dict_count(self)) end,
}, nil, "use get(key) and set(key, value)")

local KEY_MAX = 2 ^ 20 -- bytes, and one less

local keys = { string = true, number = true, boolean = true }

local function check_key(method, key)
  local kind = type(key)
  if not keys[kind] or key ~= key then
    check.fail("dict:" .. method, ("key must be a string, number or boolean, got %s"):format(
      check.describe(key)), 3)
  end
  if kind == "string" and #key >= KEY_MAX then
    check.fail("dict:" .. method, ("key is too long: %d bytes"):format(#key), 3)
  end
end

local function raise_alone(method)
  error(errors.new {
    kind = "broken",
    message = ("dict:%s: all who share it wait for each other's updates"):format(method),
  }, 0)
end

--- The value of a key: a copy.
---@param key string|number|boolean
---@return any  nil if it has none
function Dict:get(key)
  check_self(self, "get")
  check_key("get", key)
  return core.dict_get(self, key)
end

--- Give a key a value, which is copied; nil takes the key out. Waits while another process updates
--- that key.
---
--- Raises an error object of kind `"encode"` if the value cannot travel.
---@param key string|number|boolean
---@param value any
function Dict:set(key, value)
  check_self(self, "set")
  check_key("set", key)
  if core.dict_set(self, key, value) ~= "done" then raise_alone "set" end
end

--- Give a key the value `fn(value it has)`, with nobody else changing it meanwhile; others can
--- get the old one. If `fn` raises, or the process dies, the old value stays.
---@param key string|number|boolean
---@param fn fun(value: any): any
---@return any value  the new one
function Dict:update(key, fn)
  check_self(self, "update")
  check_key("update", key)
  check.type("dict:update", "fn", fn, "function", 2)
  local status, value = core.dict_update(self, key, fn)
  if status == "ours" then error("dict:update: this process is updating that key already", 2) end
  if status ~= "done" then raise_alone "update" end
  return value
end

--- `for key, value in dict:pairs() do`, in no particular order. A key that is there all the time
--- comes once, with the value that it has then; those that come or go meanwhile may come or not.
---@return fun(): any, any
function Dict:pairs()
  check_self(self, "pairs")
  local part, key, value = 0, nil, nil
  return function()
    part, key, value = core.dict_next(self, part, key)
    return key, value
  end
end

--- How many keys there are.
---@return integer
function Dict:len()
  check_self(self, "len")
  return core.dict_count(self)
end

function dict.open(place, generation) return make(place, generation) end

---@return tidemill.Dict
function dict.new() return (make(core.dict_make())) end

return dict
