--- Proves after each test that it has left nothing: no worker, no zombie, no mapping, no descriptor.

local processes = require "support.processes"

local leaks = {}

local function supervisors() return processes.children(processes.self()) end

local function workers()
  local found = {}
  for _, supervisor in ipairs(supervisors()) do
    for _, worker in ipairs(processes.children(supervisor)) do found[#found + 1] = worker end
  end
  return found
end

--- Call inside a describe(): watches each of its tests.
function leaks.watch(after_each, assert)
  after_each(function()
    collectgarbage()
    collectgarbage() -- pools that were dropped go in the second round
    assert.is_true(processes.eventually(5, function() return #workers() == 0 end),
      "workers are left")
    assert.is_true(#supervisors() <= 1, "there is more than one supervisor")
    local mapped, descriptors = processes.holdings()
    assert.equal(0, mapped, "arenas are still mapped")
    assert.equal(0, descriptors, "descriptors are left")
  end)
end

return leaks
