--- Barriers: places where so many processes wait until all are there.

local check = require "tidemill.check"
local core = require "tidemill.core"
local errors = require "tidemill.errors"
local plain = require "tidemill.shared.plain"

local barrier = {}

---@class tidemill.Barrier
---@field parties integer
---@field n_waiting integer  how many are there now
---@field broken boolean
---@field timeout? number    seconds that a wait may take if it is not said
local Barrier = {}

local make, check_self, refuse_field

local function look(self, key)
  if Barrier[key] then return Barrier[key] end
  local parties, waiting, broken, timeout = core.barrier_look(self)
  if key == "parties" then return parties end
  if key == "n_waiting" then return waiting end
  if key == "broken" then return broken end
  if key == "timeout" then return timeout > 0 and timeout or nil end
  refuse_field(key, 2)
end

make, check_self, refuse_field = plain.define("barrier", Barrier, {
  __index = look,
  __tostring = function(self)
    return ("tidemill.Barrier (%d of %d wait%s)"):format(self.n_waiting, self.parties,
      self.broken and ", broken" or "")
  end,
}, nil, "read parties, n_waiting, broken and timeout")

local function raise_broken()
  error(errors.new { kind = "broken", message = "barrier:wait: the barrier is broken" }, 0)
end

--- The last one acts, then all go on.
local function act(self, action)
  if action then
    local ok, problem = pcall(action)
    if not ok then
      core.barrier_abort(self)
      error(problem, 0)
    end
  end
  if not core.barrier_open(self) then raise_broken() end
end

--- Wait until as many processes wait as the barrier has parties; then all go on, and the barrier
--- is ready for the next time.
---
--- Raises kind `"broken"` if the barrier is broken or gets so: by `abort`, by the time limit of
--- another, by an action that raises, by the death of one that waits, or because nobody is left
--- who could come; and kind `"timeout"`, which breaks it.
---@param timeout? number seconds; the barrier's own limit, or for ever, when omitted
---@return integer place  from 0: how many were there before
function Barrier:wait(timeout)
  check_self(self, "wait")
  timeout = plain.patience("barrier:wait", timeout) or self.timeout
  local status, place = core.barrier_wait(self, timeout)
  if status == "closed" then raise_broken() end
  if not plain.outcome(status, "barrier:wait", "come") then
    error(errors.new {
      kind = "timeout", message = ("barrier:wait: not all came in %g s"):format(timeout),
    }, 0)
  end
  if place == self.parties - 1 then act(self, core.barrier_action(self)) end
  return place
end

--- Break the barrier: `wait` raises, for those who are there and those who come.
function Barrier:abort()
  check_self(self, "abort")
  core.barrier_abort(self)
end

--- Make the barrier as new; those who are there are told that it was broken.
function Barrier:reset()
  check_self(self, "reset")
  core.barrier_reset(self)
end

function barrier.open(place, generation) return make(place, generation) end

---@param parties integer
---@param action? function  called by the last one that comes, before all go on
---@param timeout? number seconds that a wait may take
---@return tidemill.Barrier
function barrier.new(parties, action, timeout)
  check.count("tidemill.barrier", "parties", parties, 1, 3)
  check.type("tidemill.barrier", "action", action, "function/nil", 3)
  check.timeout("tidemill.barrier", timeout, 3)
  return (make(core.barrier_make(parties, action, timeout or 0)))
end

return barrier
