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

--- Sleep until one of these pools has news, or the deadline passes.
local function wait_any(pools, deadline)
  if #pools == 1 then
    local outcome = core.wait(pools[1]._core, nil, remaining(deadline))
    waiting.tell(pools[1])
    return outcome
  end
  local cores = {}
  for i, pool in ipairs(pools) do cores[i] = pool._core end
  core.wait_pools(cores, remaining(deadline))
  for _, pool in ipairs(pools) do
    core.step(pool._core)
    waiting.tell(pool)
  end
end

--- Check a list of results and processes; returns the promise of each once, the pools they are of,
--- and of which promise there is a process.
local function collect(where, results, level)
  check.type(where, "results", results, "table", level + 1)
  if promise.of(results) then
    check.fail(where, "results must be a list, got a result", level + 1)
  end
  local list, seen, pools, processes = {}, {}, {}, {}
  for i, given in ipairs(results) do
    local result = promise.of(given)
    if not result then
      check.fail(where, ("results[%d] must be a result, got %s"):format(i, check.describe(given)),
        level + 1)
    end
    if not seen[result] then
      seen[result] = true
      list[#list + 1] = result
      if given ~= result then processes[result] = given end
      local pool = result[POOL]
      if not seen[pool] then
        seen[pool] = true
        pools[#pools + 1] = pool
      end
    end
  end
  return list, pools, processes
end

--- Watch no more.
local function forget(result, watcher)
  local watchers = result[WATCHERS]
  for i = watchers and #watchers or 0, NEXT + 1, -1 do
    if watchers[i] == watcher then table.remove(watchers, i) end
  end
end

--- Those of the results that are over, in the order in which they were, get into `over`; the
--- others will be put there.
---@return table<tidemill.Result, function> watchers
local function gather(list, over)
  local now, watchers = {}, {}
  for _, result in ipairs(list) do
    local function watcher() over[#over + 1] = result end
    if waiting.watch(result, watcher) then
      watchers[result] = watcher
    else
      now[#now + 1] = result
    end
  end
  table.sort(now, function(a, b) return a[ENDED] < b[ENDED] end)
  for i, result in ipairs(now) do over[i] = result end
  return watchers
end

local rules = {
  all = function(over, count) return #over == count end,
  first = function(over, count) return #over > 0 or count == 0 end,
  error = function(over, count, from)
    for i = from, #over do
      if over[i][COUNT] == -1 then return true end
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
  local list, pools, processes = collect("tidemill.wait", results, 3)
  local deadline = timeout and core.now() + timeout
  local over, judged = {}, 1
  local watchers = gather(list, over)
  while not rule(over, #list, judged) do
    judged = #over + 1
    if deadline and core.now() >= deadline then break end
    wait_any(pools, deadline)
  end
  local is_over, done, pending = {}, {}, {}
  for i, result in ipairs(over) do is_over[result], done[i] = true, processes[result] or result end
  for _, result in ipairs(list) do
    if not is_over[result] then
      pending[#pending + 1] = processes[result] or result
      forget(result, watchers[result])
    end
  end
  return done, pending
end

--- See `tidemill.as_completed`.
function waiting.as_completed(results, timeout)
  check.timeout("tidemill.as_completed", timeout, 3)
  local list, pools, processes = collect("tidemill.as_completed", results, 3)
  local deadline = timeout and core.now() + timeout
  local over, taken, count = {}, 0, #list
  gather(list, over)
  return function() -- which holds no result that it has given
    while taken == #over do
      if taken == count then return nil end
      if deadline and core.now() >= deadline then
        error(errors.new {
          kind = "timeout",
          message = ("%d of %d results are not ready in %g s"):format(count - taken, count,
            timeout),
        }, 0)
      end
      wait_any(pools, deadline)
    end
    taken = taken + 1
    local result = over[taken]
    local given = processes[result] or result
    over[taken], processes[result] = false, nil
    return given
  end
end

return waiting
