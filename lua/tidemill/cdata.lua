--- How FFI values travel: the name of their type and their bytes. Scalars, structs, unions and
--- enums that have a name, and arrays of them. A struct's type must be declared in the worker too,
--- and what its fields point to does not travel: the bytes are copied as they are.

local ffi = require "ffi"
local shared = require "tidemill.shared"

local cdata = {}

local scalars = { complex = true, ["complex float"] = true, bool = true }
local names = "int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t char float double"
for name in names:gmatch "%S+" do
  scalars[tostring(ffi.typeof(name)):match "^ctype<(.*)>$"] = true
end

--- The type of one element, and the dimensions behind it: "double", "[2][3]".
local function split(name)
  local element, dimensions = name:match "^(.-) ?(%[[%d%[%]?]*%])$"
  return element or name, dimensions or ""
end

local function can_travel(element)
  return scalars[element] or element:match "^struct [%a_][%w_]*$"
    or element:match "^union [%a_][%w_]*$" or element:match "^enum [%a_][%w_]*$"
end

--- May a type, by this name, be that of the elements of an array?
function cdata.is_element(name)
  return (scalars[name] or name:match "^struct [%a_][%w_]*$" or name:match "^union [%a_][%w_]*$")
    ~= nil
end

--- Take a value apart.
---@param value ffi.cdata*
---@return string|boolean? type  true for a shared object; nil if it cannot travel,
---@return string bytes_or_what  and what it is
function cdata.encode(value)
  local handle = shared.encode(value)
  if handle then return true, handle end
  local name = tostring(ffi.typeof(value)):match "^ctype<(.-) ?&?>$"
  local element, dimensions = split(name)
  if not can_travel(element) then
    local is_pointer = name:find("*", 1, true) or name:find("(", 1, true)
    return nil, (is_pointer and "a pointer (%s)"
      or "cdata of the unnamed type '%s' (give the struct a tag)"):format(name)
  end
  if dimensions ~= "" or element:find "^[su]%w+ " then
    return name, ffi.string(ffi.cast("const char *", value), ffi.sizeof(value))
  end
  local box = ffi.new(element .. "[1]", value)
  return name, ffi.string(box, ffi.sizeof(box))
end

--- Put a value together again.
---@param name string
---@param bytes string
---@return ffi.cdata*? value  nil if the two do not fit, or the type is not declared here
function cdata.decode(name, bytes)
  local element, dimensions = split(name)
  if not can_travel(element) then return nil end
  local is_scalar = dimensions == "" and not element:find "^[su]%w+ "
  local type = ffi.typeof(is_scalar and element .. "[1]" or name)
  -- The size first: the dimensions may be anything, and nothing is to be made for them.
  local count
  if dimensions:find("?", 1, true) then count = #bytes / ffi.sizeof(type, 1) end
  if ffi.sizeof(type, count) ~= #bytes then return nil end
  local value = count and type(count) or type()
  ffi.copy(value, bytes, #bytes)
  return is_scalar and value[0] or value
end

return cdata
