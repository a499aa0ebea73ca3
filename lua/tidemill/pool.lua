--- Pools: the methods a script calls.

local check = require "tidemill.check"
local core = require "tidemill.core"
local crew = require "tidemill.crew"
local errors = require "tidemill.errors"
local functions = require "tidemill.functions"
local options = require "tidemill.options"
local progress = require "tidemill.progress"
local promise = require "tidemill.promise"
local range = require "tidemill.range"
local reduce = require "tidemill.reduce"
local result = require "tidemill.result"
local source = require "tidemill.source"
local stream = require "tidemill.stream"
local waiting = require "tidemill.waiting"

local JOB, CALL = promise.JOB, promise.CALL

local pool = {}

---@class tidemill.Pool
---@field processes integer  workers it should have
---@field name string
---@field _core userdata
---@field _hidden? table<string, true>  globals that are not sent: the workers have their own
---@field _defaults table               options for the calls
---@field _watch tidemill.Watch
---@field _streams table<tidemill.Stream, true>  weak
local Pool = {}
local Pool_mt = { __index = Pool, __name = "tidemill.Pool" }
Pool_mt.__tidemill = { encode = function()
  error("a pool does not travel: make one in the worker", 0)
end }

-- ---- making ----

local weak = { __mode = "k" }

--- Make a pool; see `tidemill.pool`.
---@param given? integer|tidemill.PoolOptions
---@param where string  the function to name in errors
---@return tidemill.Pool
function pool.new(given, where)
  local normal = options.for_pool(given, where, 3)
  local handle, hidden = crew.start(normal, where, 3)
  return setmetatable({
    processes = normal.processes, name = normal.name, _core = handle, _hidden = hidden,
    _defaults = options.defaults_of(normal), _watch = waiting.new_watch(handle),
    _streams = setmetatable({}, weak),
  }, Pool_mt)
end

-- ---- submitting ----

-- `level` is as for error(), seen from the function that has it as a parameter: 2 is its caller.

local function check_self(self, method, level)
  if getmetatable(self) ~= Pool_mt then
    check.fail("pool:" .. method, "call it with a colon", (level or 2) + 1)
  end
end

local function check_open(self, method)
  local state, reason = core.state(self._core)
  if state == "open" then return end
  local message = ("pool:%s: the pool is %s%s"):format(method, state,
    state == "broken" and ": " .. reason or "")
  error(errors.new { kind = state == "broken" and "broken" or "closed", message = message }, 0)
end

local function check_function(method, f, name, level)
  local resolved, problem = functions.resolve(f)
  if resolved then return resolved end
  local shown = type(f) == "string" and ("%s '%s': "):format(name, f) or name .. ": "
  check.fail("pool:" .. method, shown .. problem, level + 1)
end

--- Check the arguments of a call and start its job.
---@return userdata job, tidemill.CallOptions given, function? iterator
local function start(self, method, f, items, given, flags, level, combine)
  check_self(self, method, level)
  f = check_function(method, f, "f", level)
  local list, total, first, step, iterator = source.of(method, items, level)
  given = options.for_call(given, self._defaults, "pool:" .. method, level)
  check_open(self, method)
  if iterator then flags = flags + core.LAZY end
  if given.errors == "collect" then flags = flags + core.COLLECT end
  crew.hide(self._hidden)
  return core.submit(self._core, f, combine, list, total, flags, given.chunksize or 0, first, step,
    given.timeout, given.retries, given.retry_errors, given.buffer), given, iterator
end

local function ticker_for(given, bounded)
  local ticker = progress.new(given.progress)
  if ticker then ticker.bounded = bounded end
  return ticker
end

--- Feed a job from an iterator until that ends. Raises what the iterator raises.
local function feed_all(self, job, iterator, ticker)
  local batch
  repeat
    batch = source.feed(job, iterator, 0)
    if batch.failure then error(batch.failure[1], 0) end
    if not batch.ended then waiting.wait_for(self, job, nil, ticker) end
  until batch.ended or core.outcome(job) ~= "running"
end

local function bring_to_end(self, job, given, iterator)
  local ticker = ticker_for(given, not iterator)
  if iterator then feed_all(self, job, iterator, ticker) end
  waiting.wait_for(self, job, nil, ticker)
end

--- Bring a job to its end and return its results. What is raised meanwhile, by the iterator or a
--- callback, ends the job: nobody else has it.
local function finish(self, job, given, iterator)
  local waited, problem = pcall(bring_to_end, self, job, given, iterator)
  if not waited then
    core.cancel(job)
    error(problem, 0)
  end
  if given.callback or given.error_callback then
    result.of_job(self, job, given)
    waiting.tell(self)
  end
  local state, value = core.outcome(job)
  if state ~= "done" then error(value, 0) end
  return value
end

--- Items for a job that goes on without us: all are needed now.
local function all_of(items)
  if type(items) ~= "function" then return items end
  return (source.pull_all(items))
end

-- ---- calls ----

--- Apply `f` to every item, in parallel.
---
--- Raises the first error that comes in, as an error object, unless `errors = "collect"`.
---@param f string|fun(item: any): any
---@param items any[]|tidemill.Range|fun(): any
---@param given? integer|tidemill.CallOptions  a chunk size, or options
---@return any[] results  in input order; a nil result leaves a hole
function Pool:map(f, items, given)
  return finish(self, start(self, "map", f, items, given, 0, 3))
end

--- The same for items that are tables of arguments (`n`, if set, says how many).
---@param f string|fun(...): any
---@param items any[][]|fun(): any[]
---@param given? integer|tidemill.CallOptions
---@return any[] results
function Pool:starmap(f, items, given)
  return finish(self, start(self, "starmap", f, items, given, core.UNPACK, 3))
end

local function start_async(self, method, f, items, given, flags)
  local job, checked = start(self, method, f, all_of(items), given, core.EAGER + flags, 4)
  return result.of_job(self, job, checked, ticker_for(checked, true))
end

--- `map` that returns at once. Items are encoded now: changing them later changes nothing.
---@return tidemill.Result
function Pool:map_async(f, items, given)
  return (start_async(self, "map_async", f, items, given, 0))
end

--- `starmap` that returns at once.
---@return tidemill.Result
function Pool:starmap_async(f, items, given)
  return (start_async(self, "starmap_async", f, items, given, core.UNPACK))
end

--- Check what a call is given, but for its arguments.
---@return function f, tidemill.CallOptions given
local function check_call(self, method, f, given, level)
  check_self(self, method, level)
  if type(f) ~= "function" then f = check_function(method, f, "f", level) end
  if given == nil then return f, self._defaults end
  return f, options.for_call(given, self._defaults, "pool:" .. method, level)
end

local no_args = {}

--- Start a call with a table of arguments.
local function start_call(self, method, f, args, given)
  f, given = check_call(self, method, f, given, 4)
  if args == nil then args = no_args end
  if type(args) ~= "table" then check.type("pool:" .. method, "args", args, "table/nil", 3) end
  local count = args.n
  if type(count) ~= "number" then count = tonumber(count) or #args end
  crew.hide(self._hidden)
  local call = result.new(self, given)
  local job, index = core.apply(self._core, call, f, given.timeout, given.retries,
    given.retry_errors, args, count)
  if not job then check_open(self, method) end
  call[JOB], call[CALL] = job, index
  return call
end

--- Run one call in a worker and return all it returns. Raises its error object.
---@param f string|fun(...): any ...
---@param args? any[]  `n`, if set, says how many
---@param given? tidemill.CallOptions
---@return any ...
function Pool:apply(f, args, given)
  local call = start_call(self, "apply", f, args, given)
  local waited, problem = pcall(call.wait, call)
  if not waited then
    call:cancel() -- nobody else has it
    error(problem, 0)
  end
  return call:get()
end

--- `apply` that returns at once.
---@param f string|fun(...): any ...
---@param args? any[]
---@param given? tidemill.CallOptions
---@return tidemill.Result
function Pool:apply_async(f, args, given)
  return (start_call(self, "apply_async", f, args, given))
end

--- `apply_async` with the arguments written out.
---@return tidemill.Result
function Pool:submit(f, ...)
  local resolved, given = check_call(self, "submit", f, nil, 3)
  crew.hide(self._hidden)
  local call = result.new(self, given)
  local job, index = core.call(self._core, call, resolved, given.timeout, given.retries,
    given.retry_errors, ...)
  if not job then check_open(self, "submit") end
  call[JOB], call[CALL] = job, index
  return call
end

-- ---- streams ----

local function start_stream(self, method, f, items, given, flags, combine)
  local job, checked, iterator =
    start(self, method, f, items, given, core.STREAM + flags, 4, combine)
  return stream.new(self, job, iterator, checked, ticker_for(checked, not iterator))
end

--- Results one by one, in input order, while the work goes on:
---
---     for i, value in pool:imap(f, items) do ... end
---
--- The input is pulled as results are taken, never further ahead than `buffer` items. An item that
--- fails raises at its place, and the iteration may be continued after it.
---@param f string|fun(item: any): any
---@param items any[]|tidemill.Range|fun(): any
---@param given? integer|tidemill.CallOptions
---@return tidemill.Stream
function Pool:imap(f, items, given)
  return (start_stream(self, "imap", f, items, given, 0))
end

--- The same in order of completion; the index is the item's place in the input.
---@return tidemill.Stream
function Pool:imap_unordered(f, items, given)
  return (start_stream(self, "imap_unordered", f, items, given, core.UNORDERED))
end

--- `imap` for items that are tables of arguments.
---@return tidemill.Stream
function Pool:istarmap(f, items, given)
  return (start_stream(self, "istarmap", f, items, given, core.UNPACK))
end

--- `imap_unordered` for items that are tables of arguments.
---@return tidemill.Stream
function Pool:istarmap_unordered(f, items, given)
  return (start_stream(self, "istarmap_unordered", f, items, given, core.UNPACK + core.UNORDERED))
end

-- ---- more than map ----

local function refuse_collect(method, given)
  if type(given) == "table" and given.errors == "collect" then
    check.fail("pool:" .. method, "errors = 'collect' has no place for them here", 3)
  end
end

--- The items for which `f` is true, in order.
---@param f string|fun(item: any): any
---@param items any[]|tidemill.Range|fun(): any
---@param given? integer|tidemill.CallOptions
---@return any[]
function Pool:filter(f, items, given)
  check_self(self, "filter")
  refuse_collect("filter", given)
  items = all_of(items)
  local job, checked = start(self, "filter", f, items, given, core.TRUTH, 3)
  local keep = finish(self, job, checked)
  local kept = {}
  if range.is_range(items) then
    for i = 1, items.count do
      if keep[i] then kept[#kept + 1] = items.first + (i - 1) * items.step end
    end
    return kept
  end
  for i = 1, #items do
    if keep[i] then kept[#kept + 1] = items[i] end
  end
  return kept
end

--- Apply `f` to every item and combine the results two by two, in input order; workers do so with
--- what they have, so that only a few values travel.
---
--- How the results are grouped depends on their number only: the same sum whatever the workers and
--- chunks, also of floating-point numbers.
---@param f string|fun(item: any): any
---@param combine string|fun(a: any, b: any): any  associative
---@param items any[]|tidemill.Range|fun(): any
---@param init? any  goes before all; it is the result if there are no items
---@param given? integer|tidemill.CallOptions
---@return any
function Pool:mapreduce(f, combine, items, init, given)
  check_self(self, "mapreduce")
  if given == nil and options.are_for_call(init) then
    check.fail("pool:mapreduce", "options go after init, which may be nil", 2)
  end
  refuse_collect("mapreduce", given)
  local combined = check_function("mapreduce", combine, "combine", 2)
  local partial = start_stream(self, "mapreduce", f, items, given, core.UNORDERED + core.FOLD,
    combined)
  local fold = reduce.new(combined)
  local ok, err = pcall(function()
    for place, value in stream.take, partial do fold:add(place, value) end
  end)
  if not ok then
    partial:close()
    error(err, 0)
  end
  return fold:result(init)
end

--- Apply `f` to every item for its effects only: nothing comes back.
---@param f string|fun(item: any)
---@param items any[]|tidemill.Range|fun(): any
---@param given? integer|tidemill.CallOptions
---@return integer done                 items that did not fail
---@return tidemill.Error[]? failures   of the others, with `errors = "collect"`
function Pool:each(f, items, given)
  local job, checked, iterator = start(self, "each", f, items, given, core.EFFECT, 3)
  local failures = finish(self, job, checked, iterator)
  local done, failed = core.progress(job)
  if checked.errors == "collect" then return done - failed, failures end
  return done
end

--- Run `f(...)` once in every worker; returns the list of first results.
---@param f string|fun(...): any
---@return any[]
function Pool:broadcast(f, ...)
  check_self(self, "broadcast")
  f = check_function("broadcast", f, "f", 2)
  check_open(self, "broadcast")
  crew.hide(self._hidden)
  local defaults, args = self._defaults, { n = select("#", ...), ... }
  local flags = core.EAGER + core.UNPACK + core.BROADCAST
  local job = core.submit(self._core, f, nil, args, self.processes, flags, 1, nil, nil,
    defaults.timeout, defaults.retries, defaults.retry_errors)
  return finish(self, job, defaults)
end

-- ---- the pool itself ----

--- Take no more work. What was submitted runs; `join` waits for it.
function Pool:close()
  check_self(self, "close")
  core.close(self._core)
end

--- Wait until the work is done and the workers have ended; after `close` or `terminate`. Iterators
--- that were begun and not taken to their end are ended.
---@param timeout? number seconds; for ever when omitted
---@return boolean ended
function Pool:join(timeout)
  check_self(self, "join")
  check.timeout("pool:join", timeout, 2)
  if core.state(self._core) == "open" then error("pool:join: close the pool first", 2) end
  for unfinished in pairs(self._streams) do stream.finish(unfinished) end
  core.end_streams(self._core)
  local deadline = timeout and core.now() + timeout
  if not waiting.wait_for(self, nil, timeout) then return false end
  core.step(self._core) -- the last result is in: the workers may go
  while true do
    local outcome = core.join(self._core, waiting.remaining(deadline))
    if outcome == "done" then
      core.release(self._core)
      return true
    end
    if outcome == "timeout" and deadline and core.now() >= deadline then return false end
  end
end

--- Kill the workers now. What is outstanding fails with kind "terminated".
function Pool:terminate()
  check_self(self, "terminate")
  core.kill(self._core)
  core.release(self._core)
  waiting.tell(self)
end

--- The pids of the workers.
---@return integer[]
function Pool:workers()
  check_self(self, "workers")
  return core.workers(self._core)
end

--- What each worker has done: `pid`, `items`, `chunks`, `busy` (seconds), `restarts`, `heap` (bytes
--- of its Lua state); beside the list the totals of `items`, `chunks`, `busy` and `restarts`, and
--- `queued` and `running`: chunks that wait and that are with workers. Empty once the pool has
--- ended.
---@return table
function Pool:stats()
  check_self(self, "stats")
  local stats = core.stats(self._core)
  for _, name in ipairs { "items", "chunks", "busy", "restarts" } do
    stats[name] = 0
    for _, worker in ipairs(stats) do stats[name] = stats[name] + worker[name] end
  end
  return stats
end

--- Change the number of workers. New ones start at once; those that are too many end after what
--- they have in hand.
---@param n integer
function Pool:resize(n)
  check_self(self, "resize")
  check.count("pool:resize", "n", n, 1, 2)
  check_open(self, "resize")
  local ok, problem = core.resize(self._core, n)
  if not ok then check.fail("pool:resize", problem, 2) end
  self.processes = n
end

--- A descriptor that is readable when `poll` has something to do, for an event loop. It is the
--- pool's: do not close it, and forget it when the pool ends.
---@return integer
function Pool:fd()
  check_self(self, "fd")
  check_open(self, "fd")
  return core.fd(self._core)
end

--- Take in what has arrived, go on with what waits, run callbacks.
---@param timeout? number seconds to wait for something to do; 0 when omitted
---@return boolean outstanding  is there work that is not over?
function Pool:poll(timeout)
  check_self(self, "poll")
  check.timeout("pool:poll", timeout, 2)
  core.step(self._core)
  local told = waiting.tell(self)
  if not told and (timeout or 0) > 0 and core.is_busy(self._core) then
    core.wait_pools({ self._core }, timeout)
    core.step(self._core)
    waiting.tell(self)
  end
  return core.is_busy(self._core)
end

function Pool_mt.__tostring(self)
  return ("tidemill.Pool '%s' (%d workers, %s)"):format(self.name, self.processes,
    (core.state(self._core)))
end

return pool
