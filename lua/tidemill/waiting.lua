--- Waiting for jobs: the one loop in which the script sleeps, and in which callbacks run.

local check = require "tidemill.check"
local core = require "tidemill.core"
local errors = require "tidemill.errors"

local waiting = {}

---@class tidemill.Watch  what to do when a job is over, per pool
---@field jobs table<userdata, function[]>  watchers of jobs that run
---@field due function[]                    watchers of jobs that are over, to be called
---@field first integer                     due[first] is the next
---@field last integer

---@return tidemill.Watch
function waiting.new_watch()
  return { jobs = {}, due = {}, first = 1, last = 0 }
end

local function take_finished(pool)
  local finished = core.finished(pool._core)
  if not finished then return end
  local watch = pool._watch
  for _, job in ipairs(finished) do
    local watchers = watch.jobs[job]
    watch.jobs[job] = nil
    for _, watcher in ipairs(watchers or {}) do
      watch.last = watch.last + 1
      watch.due[watch.last] = watcher
    end
  end
end

--- Call the watchers of jobs that are over. What one raises is raised here; the others are called
--- next time.
---@param pool tidemill.Pool
---@return boolean told  was there any?
function waiting.tell(pool)
  local watch = pool._watch
  take_finished(pool)
  local told = watch.first <= watch.last
  while watch.first <= watch.last do
    local watcher = watch.due[watch.first]
    watch.due[watch.first] = nil
    watch.first = watch.first + 1
    watcher()
  end
  return told
end

--- Have `watcher` called when the job is over; false if it is.
---@param pool tidemill.Pool
---@param job userdata
---@param watcher function
---@return boolean
function waiting.watch(pool, job, watcher)
  local watchers = pool._watch.jobs[job]
  if not watchers then
    if not core.notify(job) then return false end
    watchers = {}
    pool._watch.jobs[job] = watchers
  end
  watchers[#watchers + 1] = watcher
  return true
end

--- Have `watcher` called in the next wait: its job is over already.
function waiting.call_soon(pool, watcher)
  local watch = pool._watch
  watch.last = watch.last + 1
  watch.due[watch.last] = watcher
end

local function remaining(deadline)
  return deadline and math.max(0, deadline - core.now())
end

--- Wait for a job (for all of the pool's, if nil), over interruptions: a signal's Lua handler runs
--- between two rounds. A stream is waited for until its next result is there.
---@param pool tidemill.Pool
---@param job? userdata
---@param timeout? number seconds
---@param ticker? tidemill.Ticker  progress to be shown meanwhile
---@param taken? integer           results taken of a stream
---@return boolean done
function waiting.wait_for(pool, job, timeout, ticker, taken)
  local deadline = timeout and core.now() + timeout
  while true do
    local patience = remaining(deadline)
    if ticker then patience = math.min(patience or math.huge, ticker:tick(job)) end
    local outcome = core.wait(pool._core, job, patience, taken)
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

--- Check a list of results; returns each once, and the pools they are of.
local function collect(where, results, level)
  check.type(where, "results", results, "table", level + 1)
  if rawget(results, "_job") then
    check.fail(where, "results must be a list, got a result", level + 1)
  end
  local list, seen, pools = {}, {}, {}
  for i, result in ipairs(results) do
    if type(result) ~= "table" or not rawget(result, "_job") then
      check.fail(where, ("results[%d] must be a result, got %s"):format(i, check.describe(result)),
        level + 1)
    end
    if not seen[result] then
      seen[result] = true
      list[#list + 1] = result
      if not seen[result._pool] then
        seen[result._pool] = true
        pools[#pools + 1] = result._pool
      end
    end
  end
  return list, pools
end

--- Watch no more.
local function forget(pool, job, watcher)
  local watchers = pool._watch.jobs[job] or {}
  for i = #watchers, 1, -1 do
    if watchers[i] == watcher then return table.remove(watchers, i) end
  end
end

--- Those of the results that are over, in the order in which they were, get into `over`; the
--- others will be put there.
---@return table<tidemill.Result, function> watchers
local function gather(list, over)
  local now, watchers = {}, {}
  for _, result in ipairs(list) do
    local function watcher() over[#over + 1] = result end
    if waiting.watch(result._pool, result._job, watcher) then
      watchers[result] = watcher
    else
      now[#now + 1] = result
    end
  end
  local ended = {}
  for _, result in ipairs(now) do ended[result] = select(3, core.outcome(result._job)) end
  table.sort(now, function(a, b) return ended[a] < ended[b] end)
  for i, result in ipairs(now) do over[i] = result end
  return watchers
end

local rules = {
  all = function(over, count) return #over == count end,
  first = function(over, count) return #over > 0 or count == 0 end,
  error = function(over, count, from)
    for i = from, #over do
      if core.outcome(over[i]._job) == "failed" then return true end
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
  local over, judged = {}, 1
  local watchers = gather(list, over)
  while not rule(over, #list, judged) do
    judged = #over + 1
    if deadline and core.now() >= deadline then break end
    wait_any(pools, deadline)
  end
  local is_over, done, pending = {}, {}, {}
  for i, result in ipairs(over) do is_over[result], done[i] = true, result end
  for _, result in ipairs(list) do
    if not is_over[result] then
      pending[#pending + 1] = result
      forget(result._pool, result._job, watchers[result])
    end
  end
  return done, pending
end

--- See `tidemill.as_completed`.
function waiting.as_completed(results, timeout)
  check.timeout("tidemill.as_completed", timeout, 3)
  local list, pools = collect("tidemill.as_completed", results, 3)
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
    over[taken] = false
    return result
  end
end

return waiting
