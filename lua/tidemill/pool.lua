--- Pools: the methods a script calls.

local check = require "tidemill.check"
local core = require "tidemill.core"
local errors = require "tidemill.errors"
local functions = require "tidemill.functions"
local range = require "tidemill.range"
local result = require "tidemill.result"

local pool = { classes = {} } -- registered metatables by name; every new worker gets them

---@class tidemill.Pool
---@field processes integer  workers it was made with
---@field name string
---@field _core userdata
---@field _hidden? table<string, true>  globals that the initializer assigns
---@field _chunksize? integer
local Pool = {}
local Pool_mt = { __index = Pool, __name = "tidemill.Pool" }

---@class tidemill.PoolOptions
---@field processes? integer     workers; `tidemill.cpu_count()` when omitted
---@field initializer? function  run in every worker before its first task, replacements too
---@field initargs? any[]        its arguments
---@field preload? string[]      modules that every worker requires first
---@field chunksize? integer     default for the calls
---@field name? string
local pool_options = {
  processes = true, initializer = true, initargs = true, preload = true, chunksize = true,
  name = true,
}

---@class tidemill.CallOptions
---@field chunksize? integer  items a worker takes at a time; adapts to about 1 ms when omitted
---@field errors? "raise"|"collect"
local call_options = { chunksize = true, errors = true }

-- ---- making ----

local function default_processes()
  if core.worker() then return 1 end
  local wanted = tonumber(os.getenv "TIDEMILL_PROCESSES" or "")
  return wanted and wanted >= 1 and math.floor(wanted) or core.cpu_count()
end

local function check_pool_options(options, where)
  check.keys(where, options, pool_options, 5)
  check.count(where, "processes", options.processes, 1, 5)
  if options.processes > core.WORKERS_MAX then
    check.fail(where, ("processes must be at most %d"):format(core.WORKERS_MAX), 5)
  end
  check.type(where, "initializer", options.initializer, "function/nil", 5)
  check.type(where, "initargs", options.initargs, "table/nil", 5)
  check.type(where, "preload", options.preload, "table/nil", 5)
  check.type(where, "name", options.name, "string/nil", 5)
  if options.chunksize ~= nil then check.count(where, "chunksize", options.chunksize, 1, 5) end
  for i, name in ipairs(options.preload or {}) do
    check.type(where, ("preload[%d]"):format(i), name, "string", 5)
  end
end

local function normalize(options, where)
  local normal = {}
  if options ~= nil and type(options) ~= "number" then
    check.type(where, "options", options, "table/number/nil", 4)
    for key, value in pairs(options) do normal[key] = value end
  else
    normal.processes = options
  end
  if normal.processes == nil then normal.processes = default_processes() end
  check_pool_options(normal, where)
  normal.name = normal.name or "pool"
  return normal
end

local hidden_now -- what the codec hides at the moment

local function hide(names)
  if names ~= hidden_now then
    core.hide_globals(names)
    hidden_now = names
  end
end

--- What a worker starts with: see the top of src/lua/worker.c.
local function config_of(options)
  local where = {
    path = package.path, cpath = package.cpath, cwd = core.cwd(),
    preload = options.preload, name = options.name, classes = pool.classes,
  }
  local args = options.initargs or {}
  hide(nil)
  core.plain_classes(true)
  local ok, head = pcall(core.message, where)
  core.plain_classes(false)
  if not ok then error(head, 0) end
  return head .. core.message(options.initializer, unpack(args, 1, args.n or #args))
end

local function raise_start(failure)
  if type(failure) == "table" then
    failure.kind = "init"
    error(errors.new(failure), 0)
  end
  error(errors.new { kind = "broken", message = "cannot start the pool: " .. failure }, 0)
end

--- Make a pool; see `tidemill.pool`.
---@param options? integer|tidemill.PoolOptions
---@param where string  the function to name in errors
---@return tidemill.Pool
function pool.new(options, where)
  local normal = normalize(options, where)
  local hidden
  if normal.initializer then
    hidden = {}
    core.assigned_globals(normal.initializer, hidden)
  end
  core.start()
  local wait = normal.initializer ~= nil or normal.preload ~= nil
  local handle, failure = core.open(normal.processes, config_of(normal), wait)
  if not handle then raise_start(failure) end
  return setmetatable({
    processes = normal.processes, name = normal.name, _core = handle, _hidden = hidden,
    _chunksize = normal.chunksize,
  }, Pool_mt)
end

-- ---- arguments ----

local function check_self(self, method, level)
  if getmetatable(self) ~= Pool_mt then
    check.fail("pool:" .. method, "call it with a colon", level or 3)
  end
end

local function check_open(self, method)
  local state, reason = core.state(self._core)
  if state == "open" then return end
  local message = ("pool:%s: the pool is %s%s"):format(method, state,
    state == "broken" and ": " .. reason or "")
  error(errors.new { kind = state == "broken" and "broken" or "closed", message = message }, 0)
end

--- The third argument of the map family: a chunk size or a table.
local function check_options(self, method, options)
  local where = "pool:" .. method
  if type(options) == "number" then options = { chunksize = options } end
  check.type(where, "options", options, "table/number/nil", 4)
  options = options or {}
  check.keys(where, options, call_options, 4)
  if options.chunksize ~= nil then check.count(where, "chunksize", options.chunksize, 1, 4) end
  if options.errors ~= nil and options.errors ~= "raise" and options.errors ~= "collect" then
    check.fail(where, ("errors must be 'raise' or 'collect', got %s"):format(
      tostring(options.errors)), 4)
  end
  return options.chunksize or self._chunksize or 0, options.errors == "collect"
end

local function check_function(method, f)
  local resolved, problem = functions.resolve(f)
  if resolved then return resolved end
  local shown = type(f) == "string" and ("f '%s': "):format(f) or "f: "
  check.fail("pool:" .. method, shown .. problem, 4)
end

local function pull(iterator)
  local items, count = {}, 0
  for item in iterator do
    count = count + 1
    items[count] = item
  end
  return items, count
end

--- Items as the core takes them: a table and its length, or nil, a length and a range's bounds.
local function check_items(method, items)
  if range.is_range(items) then return nil, items.count, items.first, items.step end
  if type(items) == "function" then return pull(items) end
  check.type("pool:" .. method, "items", items, "table/function", 4)
  return items, #items
end

local function start(self, method, f, items, options, flags)
  check_self(self, method, 4)
  f = check_function(method, f)
  local chunksize, collect = check_options(self, method, options)
  check_open(self, method)
  local list, total, first, step = check_items(method, items)
  hide(self._hidden)
  if collect then flags = flags + core.COLLECT end
  return core.submit(self._core, f, list, total, flags, chunksize, first, step)
end

local function finish(self, job)
  result.wait_for(self._core, job)
  local ok, value = result.take(job)
  if not ok then error(value, 0) end
  return value
end

-- ---- calls ----

--- Apply `f` to every item, in parallel.
---
--- Raises the first error that comes in, as an error object, unless `errors = "collect"`.
---@param f fun(item: any): any
---@param items any[]|tidemill.Range|fun(): any
---@param options? integer|tidemill.CallOptions  a chunk size, or options
---@return any[] results  in input order; a nil result leaves a hole
function Pool:map(f, items, options)
  return finish(self, start(self, "map", f, items, options, 0))
end

--- The same for items that are tables of arguments (`n`, if set, says how many).
---@param f fun(...): any
---@param items any[][]|fun(): any[]
---@param options? integer|tidemill.CallOptions
---@return any[] results
function Pool:starmap(f, items, options)
  return finish(self, start(self, "starmap", f, items, options, core.UNPACK))
end

--- `map` that returns at once. Items are encoded now: changing them later changes nothing.
---@return tidemill.Result
function Pool:map_async(f, items, options)
  local job = start(self, "map_async", f, items, options, core.EAGER)
  return result.new(self._core, job, false)
end

--- `starmap` that returns at once.
---@return tidemill.Result
function Pool:starmap_async(f, items, options)
  local job = start(self, "starmap_async", f, items, options, core.EAGER + core.UNPACK)
  return result.new(self._core, job, false)
end

local function start_call(self, method, f, args)
  check_self(self, method, 4)
  f = check_function(method, f)
  check.type("pool:" .. method, "args", args, "table/nil", 3)
  check_open(self, method)
  hide(self._hidden)
  local flags = core.EAGER + core.UNPACK + core.ALL
  return core.submit(self._core, f, { args or {} }, 1, flags, 1)
end

--- Run one call in a worker and return all it returns. Raises its error object.
---@param f fun(...): any ...
---@param args? any[]  `n`, if set, says how many
---@return any ...
function Pool:apply(f, args)
  local values = finish(self, start_call(self, "apply", f, args))
  return unpack(values, 1, values.n)
end

--- `apply` that returns at once.
---@return tidemill.Result
function Pool:apply_async(f, args)
  return result.new(self._core, start_call(self, "apply_async", f, args), true)
end

--- `apply_async` with the arguments written out.
---@return tidemill.Result
function Pool:submit(f, ...)
  local job = start_call(self, "submit", f, { n = select("#", ...), ... })
  return result.new(self._core, job, true)
end

-- ---- the pool itself ----

--- Take no more work. What was submitted runs; `join` waits for it.
function Pool:close()
  check_self(self, "close")
  core.close(self._core)
end

--- Wait until the work is done and the workers have ended; after `close` or `terminate`.
---@param timeout? number seconds; for ever when omitted
---@return boolean ended
function Pool:join(timeout)
  check_self(self, "join")
  check.timeout("pool:join", timeout, 2)
  if core.state(self._core) == "open" then error("pool:join: close the pool first", 2) end
  local deadline = timeout and core.now() + timeout
  if not result.wait_for(self._core, nil, timeout) then return false end
  core.step(self._core) -- the last result is in: the workers may go
  while true do
    local outcome = core.join(self._core, deadline and math.max(0, deadline - core.now()))
    if outcome == "done" then core.release(self._core) end
    if outcome ~= "interrupted" then return outcome == "done" end
  end
end

--- Kill the workers now. What is outstanding fails with kind "terminated".
function Pool:terminate()
  check_self(self, "terminate")
  core.kill(self._core)
  core.release(self._core)
end

--- The pids of the workers.
---@return integer[]
function Pool:workers()
  check_self(self, "workers")
  return core.workers(self._core)
end

--- What each worker has done: `pid`, `items`, `chunks`, `busy` (seconds), `restarts`. Empty once
--- the pool has ended.
---@return table[]
function Pool:stats()
  check_self(self, "stats")
  return core.stats(self._core)
end

function Pool_mt.__tostring(self)
  return ("tidemill.Pool '%s' (%d workers, %s)"):format(self.name, self.processes,
    (core.state(self._core)))
end

return pool
