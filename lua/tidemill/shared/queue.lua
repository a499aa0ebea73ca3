--- Queues: what one process puts another gets, in order; many may do either.
---
--- There is no thread that feeds it and no process that serves it: `put` returns when the value is
--- in shared memory, or raises because it cannot travel.

local check = require "tidemill.check"
local core = require "tidemill.core"
local errors = require "tidemill.errors"
local plain = require "tidemill.shared.plain"

local queue = {}

local CAPACITY_MAX = 2 ^ 31 - 1

---@class tidemill.Queue
---@operator len: integer
local Queue = {}

local reasons = {
  closed = "the queue is closed", timeout = "the time is over",
  alone = "nobody is left at the other end",
}

local function raise(method, status)
  error(errors.new {
    kind = status == "alone" and "broken" or status,
    message = ("queue:%s: %s"):format(method, reasons[status]),
  }, 0)
end

--- `for i, value in queue do`: takes values until the queue is closed and empty. `i` counts them.
local function iterate(self, _, i)
  local status, value = core.queue_get(self, true)
  if status == "closed" then return nil end
  if status ~= "done" then raise("get", status) end
  return (i or 0) + 1, value
end

local make, check_self = plain.define("queue", Queue, {
  __call = iterate,
  __len = function(self) return (core.queue_look(self)) end,
  __tostring = function(self)
    local size, capacity, closed = core.queue_look(self)
    return ("tidemill.Queue (%d%s values%s)"):format(size,
      capacity > 0 and " of " .. capacity or "", closed and ", closed" or "")
  end,
})

--- Append a value; waits while the queue is full.
---
--- Raises an error object of kind `"encode"` if the value cannot travel, `"closed"` or `"timeout"`,
--- `"broken"` if the queue is full and nobody is left who could get anything.
---@param value any
---@param timeout? number seconds; for ever when omitted
function Queue:put(value, timeout)
  check_self(self, "put")
  timeout = plain.patience("queue:put", timeout)
  local status = core.queue_put(self, value, true, timeout)
  if status ~= "done" then raise("put", status) end
end

--- Append a value unless the queue is full. Raises as `put`.
---@param value any
---@return boolean put
function Queue:try_put(value)
  check_self(self, "try_put")
  local status = core.queue_put(self, value, false)
  if status == "full" then return false end
  if status ~= "done" then raise("try_put", status) end
  return true
end

--- Take the oldest value; waits while the queue is empty.
---
--- Raises an error object of kind `"closed"` if it is closed and empty, `"timeout"`, `"broken"` if
--- it is empty and nobody is left who could put anything.
---@param timeout? number seconds; for ever when omitted
---@return any
function Queue:get(timeout)
  check_self(self, "get")
  timeout = plain.patience("queue:get", timeout)
  local status, value = core.queue_get(self, true, timeout)
  if status ~= "done" then raise("get", status) end
  return value
end

--- Take the oldest value, if there is one. Never waits.
---@return boolean got  false also if the queue is closed and empty
---@return any value
function Queue:try_get()
  check_self(self, "try_get")
  local status, value = core.queue_get(self, false)
  return status == "done", value
end

--- One value that was got has been dealt with; see `join`.
function Queue:task_done()
  check_self(self, "task_done")
  if not core.queue_done(self) then
    error("queue:task_done: called more often than values were got", 2)
  end
end

--- Wait until every value that was put has been dealt with: as often as values were put
--- `task_done` was called.
---
--- Raises kind `"broken"` if nobody is left who could.
---@param timeout? number seconds; for ever when omitted
---@return boolean done  false when the time is over
function Queue:join(timeout)
  check_self(self, "join")
  timeout = plain.patience("queue:join", timeout)
  local status = core.queue_join(self, timeout)
  if status == "alone" then raise("join", status) end
  return status == "done"
end

--- How many values are in it now.
---@return integer
function Queue:size()
  check_self(self, "size")
  return (core.queue_look(self))
end

--- No more values: `put` raises, and `get` when the rest has been got. May be called again.
function Queue:close()
  check_self(self, "close")
  core.queue_close(self)
end

--- Was it closed? There may be values in it.
---@return boolean
function Queue:is_closed()
  check_self(self, "is_closed")
  return (select(3, core.queue_look(self)))
end

function queue.open(place, generation) return make(place, generation) end

---@param capacity? integer  values; without bound when omitted
---@return tidemill.Queue
function queue.new(capacity)
  if capacity ~= nil then
    check.count("tidemill.queue", "capacity", capacity, 1, 3)
    if capacity > CAPACITY_MAX then
      check.fail("tidemill.queue", ("capacity must be at most %d"):format(CAPACITY_MAX), 3)
    end
  end
  return (make(core.queue_make(capacity or 0)))
end

return queue
