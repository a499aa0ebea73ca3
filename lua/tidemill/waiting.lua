--- Waiting for jobs: the one loop in which the script sleeps, and in which callbacks run.

local check = require "tidemill.check"
local core = require "tidemill.core"
local errors = require "tidemill.errors"
local promise = require "tidemill.promise"

local POOL, ENDED, COUNT = promise.POOL, promise.ENDED, promise.COUNT
local WATCHERS, NEXT, FIRST, LAST = promise.WATCHERS, promise.NEXT, promise.FIRST, promise.LAST

local waiting = {}

---@alias tidemill.Watch any[]  the watchers of a pool's promises that are kept, in order of
---                            completion: a chain, to which the C half appends

---@param handle userdata
---@return tidemill.Watch
function waiting.new_watch(handle)
  return core.finished(handle)
end

--- The next watcher to be called; nil when all were.
local function next_watcher(watch)
  while true do
    local watchers = watch[FIRST]
    if not watchers then return nil end
    local watcher = table.remove(watchers, NEXT + 1)
    if watcher then return watcher end
    local following = watchers[NEXT]
    watch[FIRST] = following
    if not following then watch[LAST] = false end
  end
end

--- Call the watchers of work that is over. What one raises is raised here; the others are called
--- next time.
---@param pool tidemill.Pool
---@return boolean told  was there any?
function waiting.tell(pool)
  local watch = pool._watch
  if not watch[FIRST] then return false end
  local told = false
  for watcher in next_watcher, watch do
    told = true
    watcher()
  end
  core.told(pool._core)
  return told
end

--- Have `watcher` called when the work is over; false if it is.
---@param result tidemill.Promise
---@param watcher function
---@return boolean
function waiting.watch(result, watcher)
  if result[COUNT] then return false end
  local watchers = result[WATCHERS]
  if watchers then
    watchers[#watchers + 1] = watcher
  else
    result[WATCHERS] = { false, watcher }
  end
  return true
end

-- Seconds of one sleep. A signal that comes between the last instruction of Lua and the sleep does
-- not end it: its handler, where it is a hook as in a stock luajit, runs after the round.
local ROUND = 1

--- How long to sleep at most before the deadline is looked at again.
---@param deadline? number
---@return number seconds
function waiting.remaining(deadline)
  return deadline and math.max(0, math.min(ROUND, deadline - core.now())) or ROUND
end

local remaining = waiting.remaining

--- Wait for a job (for all of the pool's, if nil), over interruptions: a signal's Lua handler runs
--- between two rounds. A stream is waited for until its next result is there, calls until one is.
---@param pool tidemill.Pool
---@param job? userdata
---@param timeout? number seconds
---@param ticker? tidemill.Ticker  progress to be shown meanwhile
---@param at? integer              results taken of a stream; index of a call
---@return boolean done
function waiting.wait_for(pool, job, timeout, ticker, at)
  local deadline = timeout and core.now() + timeout
  while true do
    local patience = remaining(deadline)
    if ticker then patience = math.min(patience, ticker:tick(job)) end
    local outcome = core.wait(pool._core, job, patience, at)
    waiting.tell(pool)
    if outcome == "done" then
      if ticker and core.outcome(job) ~= "running" then ticker:finish(job) end
      return true
    end
    if outcome == "timeout" and deadline and core.now() >= deadline then return false end
  end
end

-- ---- many results ----

-- A result is over when its promise is kept; its watcher says so. A process is over when it has
-- ended, which is some time after its answer has come in: the supervisor says so, on a channel that
-- a wait for several pools listens to; after each such wait the processes are looked at.

---@alias tidemill.Awaited tidemill.Result|tidemill.Process

---@class tidemill.Wait
---@field over (tidemill.Awaited|false)[]   in the order in which they were
---@field pools tidemill.Pool[]             of the results
---@field processes tidemill.Process[]      that have not ended, as far as we know
---@field watchers table<tidemill.Result, function>

--- Check a list of results and processes; returns each once, and the pools of the results.
local function collect(where, results, level)
  check.type(where, "results", results, "table", level + 1)
  if promise.is(results) or promise.is_process(results) then
    check.fail(where, "results must be a list, got a result", level + 1)
  end
  local list, seen, pools = {}, {}, {}
  for i, awaited in ipairs(results) do
    local is_process = promise.is_process(awaited)
    if not is_process and not promise.is(awaited) then
      check.fail(where, ("results[%d] must be a result, got %s"):format(i,
        check.describe(awaited)), level + 1)
    end
    if is_process and not awaited._pool then
      check.fail(where, ("process '%s': start it first"):format(awaited.name), level + 1)
    end
    if not seen[awaited] then
      seen[awaited] = true
      list[#list + 1] = awaited
      local pool = awaited[POOL]
      if pool and not seen[pool] then
        seen[pool] = true
        pools[#pools + 1] = pool
      end
    end
  end
  return list, pools
end

--- When it was over.
local function end_of(awaited) return awaited._ended or awaited[ENDED] end

local function is_earlier(a, b) return end_of(a) < end_of(b) end

local function has_failed(awaited) return (awaited._answer or awaited)[COUNT] == -1 end

--- Processes that have ended since we looked last get into `over`.
---@param self tidemill.Wait
local function look(self)
  local ended, running = {}, {}
  for _, process in ipairs(self.processes) do
    local list = process.exitcode and ended or running
    list[#list + 1] = process
  end
  table.sort(ended, is_earlier)
  for _, process in ipairs(ended) do self.over[#self.over + 1] = process end
  self.processes = running
end

--- Begin to wait: what is over gets into `over`, in order; the others will be put there.
---@param list tidemill.Awaited[]
---@param pools tidemill.Pool[]
---@return tidemill.Wait
local function begin(list, pools)
  local over, processes, watchers = {}, {}, {}
  for _, awaited in ipairs(list) do
    if promise.is_process(awaited) then
      processes[#processes + 1] = awaited
    else
      local function watcher() over[#over + 1] = awaited end
      if waiting.watch(awaited, watcher) then
        watchers[awaited] = watcher
      else
        over[#over + 1] = awaited
      end
    end
  end
  local self = { over = over, pools = pools, processes = processes, watchers = watchers }
  look(self)
  table.sort(over, is_earlier)
  return self
end

--- Call the watchers of all pools.
local function tell_all(pools)
  local told = false
  for _, pool in ipairs(pools) do told = waiting.tell(pool) or told end
  return told
end

--- Sleep until something may have got into `over`, or the deadline passes.
---@param self tidemill.Wait
---@param deadline? number
local function rest(self, deadline)
  local pools, processes = self.pools, self.processes
  if #pools == 1 and #processes == 0 then
    core.wait(pools[1]._core, nil, remaining(deadline))
    waiting.tell(pools[1])
    return
  end
  if tell_all(pools) then return look(self) end -- of what a callback has taken in
  local cores = {}
  for _, process in ipairs(processes) do cores[#cores + 1] = process._pool._core end
  for _, pool in ipairs(pools) do -- one that has nothing to do might have no news ever, or always
    if core.is_busy(pool._core) then cores[#cores + 1] = pool._core end
  end
  core.wait_pools(cores, remaining(deadline))
  for _, pool in ipairs(pools) do core.step(pool._core) end
  tell_all(pools)
  look(self)
end

--- Watch no more.
local function forget(result, watcher)
  local watchers = result[WATCHERS]
  for i = watchers and #watchers or 0, NEXT + 1, -1 do
    if watchers[i] == watcher then table.remove(watchers, i) end
  end
end

local rules = {
  all = function(over, count) return #over == count end,
  first = function(over, count) return #over > 0 or count == 0 end,
  error = function(over, count, from)
    for i = from, #over do
      if has_failed(over[i]) then return true end
    end
    return #over == count
  end,
}

local function check_wait_options(given)
  if type(given) == "number" then given = { timeout = given } end
  check.type("tidemill.wait", "options", given, "table/number/nil", 4)
  given = given or {}
  check.keys("tidemill.wait", given, { timeout = true, return_when = true }, 4)
  check.timeout("tidemill.wait", given.timeout, 4)
  local rule = rules[given.return_when or "all"]
  if not rule then
    check.fail("tidemill.wait", ("return_when must be 'all', 'first' or 'error', got %s"):format(
      check.describe(given.return_when)), 4)
  end
  return given.timeout, rule
end

--- See `tidemill.wait`.
function waiting.wait(results, given)
  local timeout, rule = check_wait_options(given)
  local list, pools = collect("tidemill.wait", results, 3)
  local deadline = timeout and core.now() + timeout
  local self, judged = begin(list, pools), 1
  while not rule(self.over, #list, judged) do
    judged = #self.over + 1
    if deadline and core.now() >= deadline then break end
    rest(self, deadline)
  end
  local is_over, done, pending = {}, {}, {}
  for i, awaited in ipairs(self.over) do is_over[awaited], done[i] = true, awaited end
  for _, awaited in ipairs(list) do
    if not is_over[awaited] then
      pending[#pending + 1] = awaited
      if promise.is(awaited) then forget(awaited, self.watchers[awaited]) end
    end
  end
  return done, pending
end

--- See `tidemill.as_completed`.
function waiting.as_completed(results, timeout)
  check.timeout("tidemill.as_completed", timeout, 3)
  local list, pools = collect("tidemill.as_completed", results, 3)
  local deadline = timeout and core.now() + timeout
  local self, taken, count = begin(list, pools), 0, #list
  self.watchers = nil
  return function() -- which holds no result that it has given
    while taken == #self.over do
      if taken == count then return nil end
      if deadline and core.now() >= deadline then
        error(errors.new {
          kind = "timeout",
          message = ("%d of %d results are not ready in %g s"):format(count - taken, count,
            timeout),
        }, 0)
      end
      rest(self, deadline)
    end
    taken = taken + 1
    local given = self.over[taken]
    self.over[taken] = false
    return given
  end
end

return waiting
