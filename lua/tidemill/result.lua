--- What a call that does not wait returns: a promise of results.

local check = require "tidemill.check"
local core = require "tidemill.core"
local errors = require "tidemill.errors"

local result = {}

---@class tidemill.Result
---@field _pool userdata  the core pool
---@field _job userdata
---@field _all boolean  the job is one call: all its return values count
local Result = {}
local Result_mt = { __index = Result, __name = "tidemill.Result" }

local function check_self(self, method)
  if getmetatable(self) ~= Result_mt then
    check.fail("result:" .. method, "call it with a colon", 3)
  end
end

--- Wait for a core job (for all of the pool's, if nil), over interruptions: a signal's Lua handler
--- runs between two rounds.
---@param pool userdata
---@param job? userdata
---@param timeout? number seconds
---@return boolean done
function result.wait_for(pool, job, timeout)
  local deadline = timeout and core.now() + timeout
  while true do
    local outcome = core.wait(pool, job, deadline and math.max(0, deadline - core.now()))
    if outcome ~= "interrupted" then return outcome == "done" end
  end
end

--- What became of a job that is over.
---@return boolean ok, any results_or_error
function result.take(job)
  local state, value = core.outcome(job)
  return state == "done", value
end

---@return tidemill.Result
function result.new(pool, job, all)
  return setmetatable({ _pool = pool, _job = job, _all = all }, Result_mt)
end

--- Has the job reached its end, well or badly?
---@return boolean
function Result:ready()
  check_self(self, "ready")
  if core.outcome(self._job) == "running" then core.step(self._pool) end
  return core.outcome(self._job) ~= "running"
end

--- Block until the job is over.
---@param timeout? number seconds; for ever when omitted
---@return boolean ready
function Result:wait(timeout)
  check_self(self, "wait")
  check.timeout("result:wait", timeout, 2)
  return result.wait_for(self._pool, self._job, timeout)
end

--- Did the job succeed? Raises if it is not over.
---@return boolean
function Result:successful()
  check_self(self, "successful")
  if not self:ready() then error("result:successful: the result is not ready", 2) end
  return (result.take(self._job))
end

local function outcome(self, timeout)
  if not result.wait_for(self._pool, self._job, timeout) then
    return false, errors.new { kind = "timeout", message = ("no reply in %g s"):format(timeout) }
  end
  return result.take(self._job)
end

--- Block until the job is over and return what it returned.
---
--- Raises the job's error object, or one of kind `"timeout"`. A late reply is kept: `get` may be
--- called again.
---@param timeout? number seconds; for ever when omitted
---@return any ...  the call's results; for the map family the list of results
function Result:get(timeout)
  check_self(self, "get")
  check.timeout("result:get", timeout, 2)
  local ok, value = outcome(self, timeout)
  if not ok then error(value, 0) end
  if self._all then return unpack(value, 1, value.n) end
  return value
end

--- The same without raising.
---@param timeout? number seconds; for ever when omitted
---@return boolean ok
---@return any ...  the results, or the error object
function Result:try(timeout)
  check_self(self, "try")
  check.timeout("result:try", timeout, 2)
  local ok, value = outcome(self, timeout)
  if ok and self._all then return true, unpack(value, 1, value.n) end
  return ok, value
end

return result
