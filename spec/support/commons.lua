--- What is left in the commons: after each test nothing, in no process of the tree.

local processes = require "support.processes"
require "tidemill"

local core = require "tidemill.core"

local commons = {}

local PATIENCE_S = 10

--- Bytes of memory, objects, processes.
function commons.count()
  return core.commons()
end

--- Collect what this process holds no more.
function commons.collect()
  collectgarbage()
  collectgarbage() -- pools first, then what they held
end

--- Do there come to be `objects` objects, and no more than `bytes` bytes?
function commons.falls_to(objects, bytes)
  return processes.eventually(PATIENCE_S, function()
    commons.collect()
    local taken, count = core.commons()
    return count <= objects and (not bytes or taken <= bytes)
  end)
end

--- Call inside a describe(): nothing is left after each of its tests.
function commons.watch(after_each, assert)
  after_each(function()
    assert.is_truthy(commons.falls_to(0), "objects are left")
  end)
end

return commons
