--- How FFI scalars and arrays of them travel: the name of their type and their bytes.

local ffi = require "ffi"

local cdata = {}

local scalars = {}
for name in ([[int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t float double]])
  :gmatch "%S+" do
  scalars[tostring(ffi.typeof(name)):match "^ctype<(.*)>$"] = true
end
scalars["complex"], scalars["complex float"] = true, true
scalars["bool"], scalars["char"] = true, true

local function base_of(name)
  return (name:match "^(.-) %[%d+%]$" or name)
end

--- Take a value apart.
---@param value ffi.cdata*
---@return string? type, string bytes_or_what  nil and what it is, if it cannot travel
function cdata.encode(value)
  local name = tostring(ffi.typeof(value)):match "^ctype<(.*)>$"
  if not scalars[base_of(name)] then
    return nil, name:find("[*&]") and "a pointer (" .. name .. ")" or "cdata of type " .. name
  end
  if name:find "%[" then return name, ffi.string(value, ffi.sizeof(value)) end
  local box = ffi.new(ffi.typeof("$[1]", ffi.typeof(value)), value)
  return name, ffi.string(box, ffi.sizeof(box))
end

--- Put a value together again.
---@param name string
---@param bytes string
---@return ffi.cdata*? value  nil if the two do not fit
function cdata.decode(name, bytes)
  if not scalars[base_of(name)] then return nil end
  local is_array = name:find "%["
  local box = ffi.new(is_array and name or name .. "[1]")
  if ffi.sizeof(box) ~= #bytes then return nil end
  ffi.copy(box, bytes, #bytes)
  return is_array and box or box[0]
end

return cdata
