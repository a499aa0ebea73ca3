--- Locks: one process at a time has one. Only that can release it; if it dies the lock is released,
--- and the next owner is told.

local check = require "tidemill.check"
local core = require "tidemill.core"
local ffi = require "ffi"
local plain = require "tidemill.shared.plain"

local lock = {}

---@class tidemill.Lock
---@field body ffi.cdata*
---@field recursive boolean
local Lock = {}

-- Called through a pointer that does not change, which is compiled as a direct call.
local try_address, release_address = core.lock_functions()
local try = ffi.cast("int (*)(void *)", try_address)
local give_back = ffi.cast("int (*)(void *)", release_address)
local TAKEN, ABANDONED = 0, 1

-- Locks of ours are not collected before they are released.
local held = {} -- luacheck: ignore 241

local make, check_self = plain.define("lock", Lock, {
  __tostring = function(self)
    return ("tidemill.Lock (%s)"):format(core.lock_is_ours(self) and "held" or "not held here")
  end,
}, "void *const body; const bool recursive;")

local function acquire_slowly(self, timeout)
  local status = core.lock_wait(self, timeout)
  if status == "ours" then
    if timeout == nil then error("lock:acquire: this process has it already", 3) end
    return false
  end
  if status == "timeout" then return false end
  held[self] = self
  return true, status == "abandoned" and "abandoned" or nil
end

--- Take the lock.
---
--- An acquire without a time limit raises for a plain lock that this process has already: it would
--- wait for ever. An rlock counts, and is free after as many releases.
---@param timeout? number|false seconds; for ever when omitted, 0 or false not at all
---@return boolean acquired
---@return "abandoned"? state  its last owner died with it: what it protects may be half done
function Lock:acquire(timeout)
  check_self(self, "acquire")
  timeout = plain.patience("lock:acquire", timeout)
  local taken = try(self.body)
  if taken > ABANDONED then return acquire_slowly(self, timeout) end
  held[self] = self
  if taken == TAKEN then return true end
  return true, "abandoned"
end

--- Give it back. Raises if it is not this process that has it.
function Lock:release()
  check_self(self, "release")
  if give_back(self.body) ~= 0 then
    error("lock:release: this process does not have it", 2)
  end
  if not self.recursive or not core.lock_is_ours(self) then held[self] = nil end
end

local function release_after(self, ok, ...)
  self:release()
  if not ok then error((...), 0) end
  return ...
end

--- Call `fn` with the lock held; returns what it returns.
---@param fn fun(state?: "abandoned"): any ...
---@return any ...
function Lock:with(fn)
  check_self(self, "with")
  check.type("lock:with", "fn", fn, "function", 2)
  local _, state = self:acquire()
  return release_after(self, pcall(fn, state))
end

--- Has this process got it?
---@return boolean
function Lock:is_held()
  check_self(self, "is_held")
  return core.lock_is_ours(self)
end

function lock.open(place, generation)
  local body, recursive = core.lock_body(place, generation)
  return make(place, generation, body, recursive)
end

--- Is `value` a lock?
---@return boolean
function lock.is_lock(value)
  return (pcall(check_self, value, ""))
end

---@param recursive boolean
---@return tidemill.Lock
function lock.new(recursive)
  return lock.open(core.lock_make(recursive))
end

return lock
