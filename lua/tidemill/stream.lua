--- Results one by one, while the work goes on: what `imap` and its kin return.

local check = require "tidemill.check"
local core = require "tidemill.core"
local errors = require "tidemill.errors"
local source = require "tidemill.source"
local waiting = require "tidemill.waiting"

local stream = {}

---@class tidemill.Stream
---@field _pool tidemill.Pool
---@field _job userdata
---@field _guard userdata      when it is collected the job ends
---@field _values any[]        the ring, see src/lua/job_ring.c
---@field _places any[]       with the capacity at 0: it grows in any call on the pool
---@field _taken integer       results that were taken
---@field _refill integer      when so many were, the window has room again
---@field _iterator? function  where items come from, until it has ended
---@field _failure? table      { what the iterator raised }
---@field _collect boolean     errors are values
---@field _ticker? tidemill.Ticker
local Stream = {}
local Stream_mt = { __index = Stream, __name = "tidemill.Stream" }

--- Where the next result will be.
local function next_place(self)
  return self._taken % self._places[0] + 1
end

--- Go on with the input as far as the window allows.
local function refill(self)
  local taken = self._taken
  if not self._iterator then
    local _, out = core.room(self._job, taken)
    self._refill = taken + math.max(1, math.floor(out / 2))
    return
  end
  local batch
  repeat
    batch = source.feed(self._job, self._iterator, taken)
    if batch.ended then self._iterator, self._failure = nil, batch.failure end
  until batch.ended or not batch.slow or self._places[next_place(self)]
  self._refill = taken + (batch.slow and 1 or math.max(1, math.floor(batch.out / 2)))
end

---@param pool tidemill.Pool
---@param job userdata
---@param iterator? function
---@param options tidemill.CallOptions
---@param ticker? tidemill.Ticker
---@return tidemill.Stream
function stream.new(pool, job, iterator, options, ticker)
  local values, places = core.ring(job)
  local self = setmetatable({
    _pool = pool, _job = job, _guard = core.guard(job), _values = values, _places = places,
    _taken = 0, _refill = 0, _iterator = iterator,
    _collect = options.errors == "collect", _ticker = ticker,
  }, Stream_mt)
  pool._streams[self] = true
  return self
end

--- The pool is being joined, nobody will take results meanwhile. What was not begun is finished,
--- if it has an end; the rest of what was is not run.
function stream.finish(self)
  local begun = self._begun or self._iterator ~= nil
  self._iterator = nil
  core.lift(self._job, not begun)
  self._cut = begun
end

--- Wait for the result at `place`.
---@return boolean there  false at the end
local function await(self, timeout)
  local deadline = timeout and core.now() + timeout
  while true do
    refill(self)
    local done = waiting.wait_for(self._pool, self._job,
      deadline and math.max(0, deadline - core.now()), self._ticker, self._taken)
    if self._places[next_place(self)] then return true end
    local state, failure = core.outcome(self._job)
    if state == "failed" and not self._closed then error(failure, 0) end
    if state ~= "running" then return false end
    if not done then
      error(errors.new { kind = "timeout", message = ("no result in %g s"):format(timeout) }, 0)
    end
  end
end

--- Nothing follows: say why, if there is a reason.
local function finish(self)
  local failure = self._failure
  self._failure = nil
  if failure then error(failure[1], 0) end
  if self._cut and not self._closed then
    self._cut = nil
    error(errors.new {
      kind = "closed", message = "the pool was joined before the iteration came to its end",
    }, 0)
  end
end

--- Take the next result as it lies in the ring.
---@param self tidemill.Stream
---@param timeout? number
---@return integer? place, any value  nil at the end
function stream.take(self, timeout)
  self._begun = true
  if self._taken >= self._refill then refill(self) end
  local at = next_place(self)
  local place = self._places[at]
  if not place then
    if not await(self, timeout) then return finish(self) end
    at = next_place(self)
    place = self._places[at]
  end
  local value = self._values[at]
  self._places[at], self._values[at] = false, nil
  self._taken = self._taken + 1
  return place, value
end

--- The next result. Raises the item's error object, unless `errors = "collect"`; the iteration may
--- be continued after it. Raises kind `"timeout"` if nothing came in time, and loses nothing.
---@param timeout? number seconds; for ever when omitted
---@return integer? index  the item's place in the input; nil at the end
---@return any value       nil for an item that failed, with `errors = "collect"`
---@return tidemill.Error? err
function Stream:next(timeout)
  if getmetatable(self) ~= Stream_mt then
    check.fail("stream:next", "call it with a colon", 2)
  end
  check.timeout("stream:next", timeout, 2)
  local place, value = stream.take(self, timeout)
  if not place then return nil end
  if self._ticker then self._ticker:tick(self._job) end
  if place > 0 then return place, value end
  if self._collect then return -place, nil, value end
  error(value, 0)
end

function Stream_mt.__call(self)
  return self:next()
end

--- End it: what was not begun is not run, what runs is stopped.
function Stream:close()
  if getmetatable(self) ~= Stream_mt then
    check.fail("stream:close", "call it with a colon", 2)
  end
  self._closed, self._iterator, self._failure = true, nil, nil
  core.cancel(self._job)
  for i = 1, self._places[0] do self._places[i], self._values[i] = false, nil end
end

function Stream_mt.__tostring(self)
  return ("tidemill.Stream (%d taken)"):format(self._taken)
end

return stream
