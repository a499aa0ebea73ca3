--- Semaphores: a count that is never less than zero. Who takes from it need not be who gives back.

local check = require "tidemill.check"
local core = require "tidemill.core"
local ffi = require "ffi"
local plain = require "tidemill.shared.plain"

local semaphore = {}

local COUNT_MAX = 2 ^ 31 - 1

-- Called through a pointer that does not change, which is compiled as a direct call.
local take_address, give_address = core.semaphore_functions()
local take_one = ffi.cast("int (*)(void *)", take_address)
local give_one = ffi.cast("int (*)(void *)", give_address)

---@class tidemill.Semaphore
---@field body ffi.cdata*
local Semaphore = {}

local make, check_self = plain.define("semaphore", Semaphore, {
  __tostring = function(self)
    return ("tidemill.Semaphore (%d)"):format(core.semaphore_count(self))
  end,
}, "void *const body;")

local function take(self, timeout, scoped)
  if core.semaphore_try(self, scoped) then return true end
  if timeout == 0 then return false end
  return plain.outcome(core.semaphore_wait(self, timeout, scoped), "semaphore:acquire",
    "release it")
end

--- Take one from the count; waits while it is zero.
---@param timeout? number|false seconds; for ever when omitted, 0 or false not at all
---@return boolean acquired
function Semaphore:acquire(timeout)
  check_self(self, "acquire")
  timeout = plain.patience("semaphore:acquire", timeout)
  return take_one(self.body) == 0 or take(self, timeout, false)
end

--- Add to the count. Raises if that would pass the limit of a bounded one.
---@param n? integer  1 when omitted
function Semaphore:release(n)
  check_self(self, "release")
  if n == nil and give_one(self.body) == 0 then return end
  if n ~= nil then check.count("semaphore:release", "n", n, 1, 2) end
  if not core.semaphore_release(self, n or 1, false) then
    error("semaphore:release: released too many times", 2)
  end
end

local function give_back(self, ok, ...)
  core.semaphore_release(self, 1, true)
  if not ok then error((...), 0) end
  return ...
end

--- Call `fn` with one taken from the count, which comes back after it, also if the process is
--- killed meanwhile. Returns what it returns.
---@param fn fun(): any ...
---@return any ...
function Semaphore:with(fn)
  check_self(self, "with")
  check.type("semaphore:with", "fn", fn, "function", 2)
  take(self, nil, true)
  return give_back(self, pcall(fn))
end

--- The count now.
---@return integer
function Semaphore:value()
  check_self(self, "value")
  return core.semaphore_count(self)
end

function semaphore.open(place, generation)
  return make(place, generation, core.semaphore_body(place, generation))
end

--- A semaphore of `n`; a bounded one refuses to be released beyond that.
---@param n? integer  1 when omitted
---@param bounded boolean
---@param where string  the function to name in errors
---@return tidemill.Semaphore
function semaphore.new(n, bounded, where)
  if n == nil then n = 1 end
  check.count(where, "n", n, bounded and 1 or 0, 3)
  if n > COUNT_MAX then check.fail(where, ("n must be at most %d"):format(COUNT_MAX), 3) end
  return semaphore.open(core.semaphore_make(n, bounded and n or 0))
end

return semaphore
