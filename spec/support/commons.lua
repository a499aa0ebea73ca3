--- What is left in the commons: after each test nothing, in no process of the tree.

local ffi = require "ffi"
local processes = require "support.processes"
require "tidemill"

local core = require "tidemill.core"

local commons = {}

local PATIENCE_S = 10

-- busted remembers whatever ffi.typeof is called with, so that values would live for ever.
for i = 1, 10 do
  local name, value = debug.getupvalue(ffi.typeof, i)
  if name == "original" then
    ffi.typeof = value
    break
  end
end

--- Bytes of memory, objects, processes.
function commons.count()
  return core.commons()
end

--- Collect what this process holds no more.
function commons.collect()
  jit.flush() -- machine code keeps the functions that it was compiled for, and their upvalues
  collectgarbage()
  collectgarbage() -- pools first, then what they held
end

--- Do there come to be `objects` objects, and no more than `bytes` bytes? A pool that is given
--- takes
--- in what arrives meanwhile.
function commons.falls_to(objects, bytes, pool)
  return processes.eventually(PATIENCE_S, function()
    if pool then pool:poll(0) end
    commons.collect()
    local taken, count = core.commons()
    return count <= objects and (not bytes or taken <= bytes)
  end)
end

--- As `it`, with the test in a coroutine of its own. The collector takes whatever lies on a
--- stack for used, also what calls that have returned left there; this stack goes with the test.
function commons.apart(it)
  return function(name, f)
    it(name, function() coroutine.wrap(f)() end)
  end
end

--- Call inside a describe(): nothing is left after each of its tests.
function commons.watch(after_each, assert)
  after_each(function()
    assert.is_truthy(commons.falls_to(0), "objects are left")
  end)
end

return commons
