--- Processes of a spec that do the same thing, some of which get killed.

local processes = require "support.processes"
local tidemill = require "tidemill"

local crowd = {}

local PATIENCE_S = 60

--- Start `count` processes that call `f(i, ...)`.
---@return tidemill.Process[]
function crowd.start(count, f, ...)
  local all = {}
  for i = 1, count do
    all[i] = tidemill.process(f, { i, ... })
    all[i]:start()
  end
  return all
end

--- Wait for the ends of all; returns the list of their first results.
function crowd.finish(all)
  local results = {}
  for i, process in ipairs(all) do results[i] = process:result(PATIENCE_S) end
  return results
end

--- The results of `count` processes that call `f(i, ...)`.
function crowd.run(count, f, ...)
  return crowd.finish(crowd.start(count, f, ...))
end

--- Start `f(...)`, kill it after about so many seconds, and wait for its end.
function crowd.kill_after(seconds, f, ...)
  local victim = tidemill.process(f, { ... })
  victim:start()
  processes.eventually(seconds, function() return not victim:is_alive() end)
  victim:kill()
  assert(victim:join(PATIENCE_S), "it did not end")
  return victim
end

--- Seconds that `f(...)` takes, and what it returns.
function crowd.time(f, ...)
  local began = processes.clock()
  local results = { n = select("#", f, ...) - 1, f(...) }
  return processes.clock() - began, unpack(results)
end

--- How often a stress spec does what it does: more by STRESS=50 in the environment.
crowd.rounds = tonumber(os.getenv "STRESS") or 2

return crowd
