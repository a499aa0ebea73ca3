--- What a C host asks for (src/embed), in terms of a script's pool. A C program sees none of this:
--- it is called from there, and what it raises comes back as a status.

local core = require "tidemill.core"
local ffi = require "ffi"
local functions = require "tidemill.functions"
local pool = require "tidemill.pool"
local result = require "tidemill.result"
local waiting = require "tidemill.waiting"

local mill = {}

---@class tidemill.Mill
---@field pool tidemill.Pool
---@field globals table        of the scripts
---@field first tidemill.Entry|false  calls that are over and not yet reported, and
---@field last tidemill.Entry|false
---@field flying integer       calls not yet among them

---@class tidemill.Entry
---@field result tidemill.Result
---@field call userdata   the host's, by its address
---@field told boolean    that it is over, or freed
---@field before tidemill.Entry|false  among those that are over
---@field after tidemill.Entry|false
---@field [1] any         what can be read: results, or the error; nil before

local FOREVER = 1e9 -- seconds

---@param globals table
---@param path? string    put before package.path
---@param cpath? string
---@param options tidemill.PoolOptions
---@return tidemill.Mill
function mill.open(globals, path, cpath, options)
  if path then package.path = path .. ";" .. package.path end
  if cpath then package.cpath = cpath .. ";" .. package.cpath end
  if globals.os.exit then -- the process is not the script's
    globals.os.exit = function() error("os.exit: only workers can exit", 2) end
  end
  return {
    globals = globals, pool = pool.new(options, "tide_mill_open"),
    first = false, last = false, flying = 0,
  }
end

-- ---- functions by their names ----

local function refuse(name, problem)
  error(("cannot call '%s': %s"):format(name, problem), 0)
end

local function find_global(self, name)
  local value = self.globals
  for part in name:gmatch "[^.]+" do
    if type(value) ~= "table" then return nil end
    value = value[part]
  end
  return value
end

--- A function of a module that is loaded already: the host's own are, where scripts cannot require.
local function find_loaded(name)
  local module, field = name:match "^([%w_.]+):([%w_]+)$"
  local loaded = module and package.loaded[module]
  if type(loaded) ~= "table" then return nil end
  if type(loaded[field]) ~= "function" then
    refuse(name, ("module '%s' has no function '%s'"):format(module, field))
  end
  return loaded[field]
end

--- A script's function goes before what else the name may mean.
local function find(self, name)
  local direct = rawget(self.globals, name)
  if type(direct) == "function" then return direct end
  if name:find "^[%a_][%w_.]*$" then
    local found = find_global(self, name)
    if type(found) == "function" then return found end
    refuse(name, found == nil and "there is no such global" or "it is a " .. type(found))
  end
  local found, problem = find_loaded(name), nil
  if not found then found, problem = functions.resolve(name) end
  if not found then refuse(name, problem) end
  return found
end

-- ---- calls ----

-- Neither of these takes memory: no call is forgotten, and none is told of that was freed.

local function add_over(self, entry)
  self.flying = self.flying - 1
  if entry.told then return end
  local last = self.last
  entry.before = last
  if last then last.after = entry else self.first = entry end
  self.last = entry
end

local function remove_over(self, entry)
  entry.told = true
  local before, after = entry.before, entry.after
  if before then before.after = after elseif self.first == entry then self.first = after end
  if after then after.before = before elseif self.last == entry then self.last = before end
  entry.before, entry.after = false, false
end

--- Start a call.
---@param self tidemill.Mill
---@param call userdata
---@param way "apply_async"|"map_async"|"starmap_async"
---@param name string
---@param items any[]
---@param count integer  of the items
---@param options? tidemill.CallOptions
---@return tidemill.Entry
function mill.start(self, call, way, name, items, count, options)
  if way == "apply_async" then
    items.n = count
  else
    for i = 1, count do
      if items[i] == nil then refuse(name, ("item %d is nil"):format(i)) end
    end
  end
  -- What is wrong with the options is not told of a place in this file.
  local ok, started = pcall(self.pool[way], self.pool, find(self, name), items, options)
  if not ok then error(started, 0) end
  local entry =
    { result = started, call = call, told = false, before = false, after = false }
  local function watcher() add_over(self, entry) end
  -- From here on we know the call's address, and nothing may raise.
  local is_watched = waiting.watch(started, watcher)
  self.flying = self.flying + 1
  if not is_watched then add_over(self, entry) end
  return entry
end

--- What became of a call that is over; then it can be read.
---@return tidemill.Error? failure
local function conclude(self, entry)
  local ok, value = result.take(entry.result)
  entry[1] = value -- which may take memory: then the call remains as it was
  remove_over(self, entry)
  return not ok and value or nil
end

--- Wait for a call.
---@param entry tidemill.Entry
---@param seconds number  negative: for ever
---@return boolean over
---@return tidemill.Error? failure
function mill.wait(self, entry, seconds)
  local started = entry.result
  if not started:ready() and (seconds == 0 or
     not started:wait(seconds >= 0 and seconds or nil)) then
    return false
  end
  waiting.tell(self.pool) -- also of others that came in with it
  return true, conclude(self, entry)
end

---@param entry tidemill.Entry
function mill.cancel(_, entry)
  entry.result:cancel()
end

--- The host frees a call.
---@param entry tidemill.Entry
function mill.forget(self, entry)
  remove_over(self, entry)
  entry.result:cancel()
  waiting.tell(self.pool)
end

--- The next call that is over.
---@param seconds number  to wait for one; negative: for ever
---@return userdata? call
---@return tidemill.Entry? entry
---@return tidemill.Error? failure
function mill.next(self, seconds)
  local deadline = core.now() + (seconds >= 0 and seconds or FOREVER)
  self.pool:poll()
  while not self.first and self.flying > 0 and core.now() < deadline do
    core.wait(self.pool._core, nil, deadline - core.now())
    waiting.tell(self.pool)
  end
  local entry = self.first
  if entry then return entry.call, entry, conclude(self, entry) end
end

---@return integer
function mill.fd(self)
  return self.pool:fd()
end

-- ---- values ----

local int64, uint64 = ffi.typeof "int64_t", ffi.typeof "uint64_t"
local int64_at = ffi.typeof "int64_t *"

--- The integer at an address.
---@param address userdata
---@return ffi.cdata*
function mill.integer(_, address)
  return ffi.cast(int64_at, address)[0]
end

--- Write an integer of 64 bits to an address.
---@return boolean  is it one?
function mill.take_integer(_, address, value)
  if not ffi.istype(int64, value) and not ffi.istype(uint64, value) then return false end
  if address then ffi.cast(int64_at, address)[0] = ffi.cast(int64, value) end
  return true
end

return mill
