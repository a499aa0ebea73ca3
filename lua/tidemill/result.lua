--- What a call that does not wait returns: a promise of results.

local check = require "tidemill.check"
local core = require "tidemill.core"
local errors = require "tidemill.errors"
local waiting = require "tidemill.waiting"

local result = {}

---@class tidemill.Result
---@field _pool tidemill.Pool
---@field _job userdata
---@field _all boolean  the job is one call: all its return values count
---@field _ticker? tidemill.Ticker
local Result = {}
local Result_mt = { __index = Result, __name = "tidemill.Result" }

local function check_self(self, method)
  if getmetatable(self) ~= Result_mt then
    check.fail("result:" .. method, "call it with a colon", 3)
  end
end

--- What became of a job that is over.
---@return boolean ok, any results_or_error
function result.take(job)
  local state, value = core.outcome(job)
  return state == "done", value
end

--- Call what is to be called when the job is over.
local function call_back(self, callback, error_callback)
  local ok, value = result.take(self._job)
  if not ok then
    if error_callback then error_callback(value) end
  elseif callback then
    if self._all then callback(unpack(value, 1, value.n)) else callback(value) end
  end
end

---@param pool tidemill.Pool
---@param job userdata
---@param all boolean
---@param options tidemill.CallOptions
---@param ticker? tidemill.Ticker
---@return tidemill.Result
function result.new(pool, job, all, options, ticker)
  local self = setmetatable({ _pool = pool, _job = job, _all = all, _ticker = ticker }, Result_mt)
  local callback, error_callback = options.callback, options.error_callback
  if callback or error_callback then
    local function watcher() call_back(self, callback, error_callback) end
    if not waiting.watch(pool, job, watcher) then waiting.call_soon(pool, watcher) end
  end
  return self
end

--- Has the job reached its end, well or badly? Never waits, and calls no callback.
---@return boolean
function Result:ready()
  check_self(self, "ready")
  if core.outcome(self._job) == "running" then core.step(self._pool._core) end
  return core.outcome(self._job) ~= "running"
end

--- Block until the job is over.
---@param timeout? number seconds; for ever when omitted
---@return boolean ready
function Result:wait(timeout)
  check_self(self, "wait")
  check.timeout("result:wait", timeout, 2)
  return waiting.wait_for(self._pool, self._job, timeout, self._ticker)
end

--- Did the job end without an error?
---@return boolean
function Result:successful()
  check_self(self, "successful")
  if not self:ready() then error("result:successful: the result is not ready", 2) end
  return (result.take(self._job))
end

local function outcome(self, timeout)
  if not waiting.wait_for(self._pool, self._job, timeout, self._ticker) then
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

--- End the job: what was not begun is not run, and workers that run some of it are stopped (and
--- replaced). `get` then raises kind `"cancelled"`.
---@return boolean cancelled  false if it was over before
function Result:cancel()
  check_self(self, "cancel")
  return core.cancel(self._job)
end

function Result_mt.__tostring(self)
  return ("tidemill.Result (%s)"):format((core.outcome(self._job)))
end

return result
