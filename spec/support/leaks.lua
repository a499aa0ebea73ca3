--- Proves after each test that it has left nothing, here and in the supervisor: no worker, no
--- zombie, no mapping, no descriptor.

local processes = require "support.processes"
local tidemill = require "tidemill"

local leaks = {}

local PATIENCE_S = 5

local function grandchildren()
  local found = {}
  for _, child in ipairs(processes.children(processes.self())) do
    for _, worker in ipairs(processes.children(child)) do found[#found + 1] = worker end
  end
  return found
end

--- Mappings of pools and descriptors, of this process and its supervisor together.
local function count_holdings()
  local mapped, open = processes.holdings()
  for _, child in ipairs(processes.children(processes.self())) do
    local its_mapped, its_open = processes.holdings(child)
    mapped, open = mapped + its_mapped, open + its_open
  end
  return mapped, open
end

-- Before the first test, with the supervisor at work. There may be a second one, of pools that
-- were spawned in an earlier file: it stays as long as the script.
local descriptors, supervisors

local function prove(assert)
  collectgarbage()
  collectgarbage() -- pools that were dropped go in the second round
  assert.is_truthy(processes.eventually(PATIENCE_S, function() return #grandchildren() == 0 end),
    "workers are left")
  assert.is_true(#processes.children(processes.self()) <= supervisors, "children are left")
  local mapped, now
  assert.is_truthy(processes.eventually(PATIENCE_S, function()
    mapped, now = count_holdings()
    return mapped == 0 and now <= descriptors
  end), ("%s arenas are mapped, %s descriptors open, %s before"):format(mapped, now, descriptors))
end

--- Call inside a describe(): watches each of its tests.
function leaks.watch(after_each, assert)
  if not descriptors then
    tidemill.with(1, function() end)
    collectgarbage()
    collectgarbage()
    descriptors = select(2, count_holdings())
    supervisors = #processes.children(processes.self())
  end
  after_each(function() prove(assert) end)
end

return leaks
