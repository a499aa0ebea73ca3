--- Shared objects as values of this state: FFI structs that hold the object while they live. What
--- all kinds have in common is here; each kind has a module of its own, loaded when it is needed.
---
--- Such a struct has the fields `place` and `generation`, together the handle, and a finalizer that
--- drops it. An object has one struct in a state, so that it is the same value however it came.

local ffi = require "ffi"

local shared = {}

-- As enum tide_kind in src/share/object.h; `module.open(place, generation, form)` makes a value of
-- an object that was received, whose hold is the value's from then on.
local modules = {
  "tidemill.shared.value", "tidemill.shared.array", "tidemill.shared.lock",
  "tidemill.shared.semaphore", "tidemill.shared.event", "tidemill.shared.condition",
  "tidemill.shared.barrier", "tidemill.shared.queue", "tidemill.shared.dict",
  "tidemill.shared.process",
}
shared.kinds = {}
for kind, name in ipairs(modules) do shared.kinds[name:match "%a+$"] = kind end

-- What travels, as src/lua/handles.c reads it; what follows the kind is the kind's own.
local form_type = ffi.typeof "struct { uint32_t place, generation, kind; double from, count; }"
local form_pointer = ffi.typeof("const $ *", form_type)

local values = setmetatable({}, { __mode = "v" }) -- by place
local openers = {}                               -- by module, once it is loaded
local encoders = {}                              -- by number of the ctype
local lists = {}                                 -- likewise, of what can be items
local functions                                  -- drop(), once it is needed

--- Let go of one hold. Never raises.
---@param place integer
---@param generation integer
function shared.drop(place, generation)
  if not functions then
    local address = require "tidemill.core".drop_function()
    functions = { drop = ffi.cast("void (*)(uint32_t, uint32_t)", address) }
  end
  functions.drop(place, generation)
end

--- Values of a ctype travel. `describe(value)` returns the kind, and what else the other side needs
--- to know: where a part of the object begins, and how long it is.
---@param ctype ffi.ctype*
---@param describe fun(value: ffi.cdata*): integer, number?, number?
---@param list? fun(value: ffi.cdata*): table|ffi.cdata*  what it is as items, if it can be
function shared.register(ctype, describe, list)
  encoders[tonumber(ctype)] = describe
  lists[tonumber(ctype)] = list
end

--- What a value is as the items of a pool's method: what can be indexed. Nil if it is none.
---@param value any
---@return table|ffi.cdata*?
function shared.items(value)
  local list = type(value) == "cdata" and lists[tonumber(ffi.typeof(value))]
  return list and list(value)
end

--- The bytes that stand for a value in a message; nil if it is no shared object.
---@param value ffi.cdata*
---@return string?
function shared.encode(value)
  local describe = encoders[tonumber(ffi.typeof(value))]
  if not describe then return nil end
  local kind, from, count = describe(value)
  local form = form_type(value.place, value.generation, kind, from or 0, count or -1)
  return ffi.string(form, ffi.sizeof(form))
end

--- The value that stands for a whole object here, if there is one.
---@return ffi.cdata*?
function shared.find(place, generation)
  local value = values[place]
  return value ~= nil and value.generation == generation and value or nil
end

--- `value` stands for its object from now on.
---@return ffi.cdata* value
function shared.remember(value)
  values[value.place] = value
  return value
end

--- A value for an object that was received; its hold becomes the value's. For the decoder.
---@param bytes string
---@return ffi.cdata*
function shared.open(bytes)
  if #bytes ~= ffi.sizeof(form_type) then error("a shared object that is damaged", 0) end
  local form = ffi.cast(form_pointer, bytes)
  local place, generation, name = form.place, form.generation, modules[form.kind]
  if form.count < 0 then -- it is the whole object
    local found = shared.find(place, generation)
    if found then
      shared.drop(place, generation)
      return found
    end
  end
  local open = openers[name] or require(name).open
  openers[name] = open
  return open(place, generation, form.from, form.count)
end

return shared
