--- What a call that does not wait returns: a promise of results.

local check = require "tidemill.check"
local core = require "tidemill.core"
local errors = require "tidemill.errors"
local promise = require "tidemill.promise"
local waiting = require "tidemill.waiting"

local POOL, JOB, CALL = promise.POOL, promise.JOB, promise.CALL
local COUNT, VALUE, TICKER = promise.COUNT, promise.VALUE, promise.TICKER

local result = {}

---@class tidemill.Result : tidemill.Promise
local Result = {}
local Result_mt = promise.mt
Result_mt.__index = Result

local function check_self(self, method)
  if getmetatable(self) ~= Result_mt then
    check.fail("result:" .. method, "call it with a colon", 3)
  end
end

--- The values of what has not failed.
local function values(self)
  local count = self[COUNT]
  if count == 1 then return self[VALUE] end
  if count > 1 then return unpack(self[VALUE], 1, count) end
end

-- Apart, since what makes a closure is not compiled.
local function call_back(self, callback, error_callback)
  waiting.watch(self, function()
    if self[COUNT] == -1 then
      if error_callback then error_callback(self[VALUE]) end
    elseif callback then
      callback(values(self))
    end
  end)
end

--- What became of work that is over.
---@param self tidemill.Result
---@return boolean ok
---@return any list_or_error  of a call all that it returned, `n` of it
function result.take(self)
  local count, value = self[COUNT], self[VALUE]
  if count == -1 then return false, value end
  if not self[CALL] then return true, value end
  return true, { n = count, values(self) }
end

--- A result of work that is about to be started.
---@param pool tidemill.Pool
---@param options tidemill.CallOptions
---@return tidemill.Result
function result.new(pool, options)
  local self = promise.new(pool)
  local callback, error_callback = options.callback, options.error_callback
  if callback or error_callback then call_back(self, callback, error_callback) end
  return self
end

--- The result of a job that was started.
---@param pool tidemill.Pool
---@param job userdata
---@param options tidemill.CallOptions
---@param ticker? tidemill.Ticker
---@return tidemill.Result
function result.of_job(pool, job, options, ticker)
  local self = result.new(pool, options)
  self[JOB], self[TICKER] = job, ticker
  core.promise(pool._core, job, self)
  return self
end

local function await(self, timeout)
  if self[COUNT] and not self[TICKER] then
    waiting.tell(self[POOL])
    return true
  end
  return waiting.wait_for(self[POOL], self[JOB], timeout, self[TICKER], self[CALL] or nil)
end

--- Has the job reached its end, well or badly? Never waits, and calls no callback.
---@return boolean
function Result:ready()
  check_self(self, "ready")
  if not self[COUNT] then core.step(self[POOL]._core) end
  return self[COUNT] ~= false
end

--- Block until the job is over.
---@param timeout? number seconds; for ever when omitted
---@return boolean ready
function Result:wait(timeout)
  check_self(self, "wait")
  check.timeout("result:wait", timeout, 2)
  return await(self, timeout)
end

--- Did the job end without an error?
---@return boolean
function Result:successful()
  check_self(self, "successful")
  if not self:ready() then error("result:successful: the result is not ready", 2) end
  return self[COUNT] ~= -1
end

local function too_late(timeout)
  return errors.new { kind = "timeout", message = ("no reply in %g s"):format(timeout) }
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
  if not await(self, timeout) then error(too_late(timeout), 0) end
  if self[COUNT] == -1 then error(self[VALUE], 0) end
  return values(self)
end

--- The same without raising.
---@param timeout? number seconds; for ever when omitted
---@return boolean ok
---@return any ...  the results, or the error object
function Result:try(timeout)
  check_self(self, "try")
  check.timeout("result:try", timeout, 2)
  if not await(self, timeout) then return false, too_late(timeout) end
  if self[COUNT] == -1 then return false, self[VALUE] end
  return true, values(self)
end

--- End the job: what was not begun is not run, and workers that run some of it are stopped (and
--- replaced). `get` then raises kind `"cancelled"`.
---@return boolean cancelled  false if it was over before
function Result:cancel()
  check_self(self, "cancel")
  return not self[COUNT] and core.cancel(self[JOB], self[CALL] or nil)
end

function Result_mt.__tostring(self)
  local count = self[COUNT]
  return ("tidemill.Result (%s)"):format(not count and "running" or count == -1 and "failed"
    or "done")
end

return result
